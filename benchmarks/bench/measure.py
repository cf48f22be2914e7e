"""Alternating rounds, their raw rows and distributions, and the frame that every script runs in."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from bench import table
from bench.noise import Noise, described, machine
from bench.table import Promise

PERCENTILES = (10, 50, 90, 95, 99)

Measure = Callable[[], Awaitable[float]]
"""Does something once and returns seconds, bytes or a rate."""


class Failed(Exception):
    """What was measured did not do what it should; the row counts as failed."""


class Refused(Exception):
    """This machine does not offer what is measured; it is left out, with the reason."""


@attrs.frozen(kw_only=True)
class Case:
    """One thing that is measured once in each round.

    Attributes:
        label: Its series.
        measure: Does it; raises ``Failed`` or ``Refused``.
        every: It has its turn in every so many rounds only, for slow references.
        repeat: How many times it is measured in its turn, for what takes microseconds.
    """

    label: str
    measure: Measure
    every: int = 1
    repeat: int = 1


@attrs.frozen(kw_only=True)
class Raw:
    """One measurement as it was.

    Attributes:
        label: Its series.
        round: The round; 0 is the one that warms up.
        figure: Seconds, bytes or a rate; ``None`` if it failed.
        error: Why it failed.
    """

    label: str
    round: int
    figure: float | None
    error: str = ""


class Run:
    """Collects what one script measures.

    Attributes:
        count: How many rounds, or sandboxes, were asked for.
        state: The state folder for clients.
        raw: All rows, in the order in which they were measured.
        absent: What could not be measured -> why.
        notes: What one must know to read the figures.
        round: The round that is being measured; 0 warms up and enters no distribution.
    """

    def __init__(self, count: int, state: Path) -> None:
        self.count = count
        self.state = state
        self.raw: list[Raw] = []
        self.absent: dict[str, str] = {}
        self.notes: list[str] = []
        self.round = 1

    async def alternate(self, cases: Sequence[Case], *, rounds: int) -> None:
        """Measure all cases once in every round, and once before to warm up.

        Each round begins with the next case, so that none always follows the same other. A case
        that is refused is left out of all that follows.
        """
        cases = list(cases)
        for number in range(rounds + 1):
            self.round = number
            turn = number % max(len(cases), 1)
            for case in [*cases[turn:], *cases[:turn]]:
                if number > 1 and (number - 1) % case.every:
                    continue
                try:
                    for _ in range(case.repeat):
                        await self.measured(case)
                except Refused as error:
                    self.absent[case.label] = str(error)
                    cases.remove(case)

    async def measured(self, case: Case) -> None:
        """Measure one case once.

        Raises:
            Refused: This machine does not offer it.
        """
        try:
            self.add(case.label, await case.measure())
        except Failed as failure:
            self.fail(case.label, str(failure))

    def add(self, label: str, figure: float) -> None:
        """Add a figure, as of what is measured within another."""
        self.raw.append(Raw(label=label, round=self.round, figure=figure))

    def fail(self, label: str, error: str) -> None:
        """Add that a measurement failed."""
        self.raw.append(Raw(label=label, round=self.round, figure=None, error=error))

    def figure(self, label: str, statistic: str = "p50") -> float | None:
        """Return one number of a series' distribution; ``None`` if nothing was measured."""
        return self.distributions().get(label, {}).get(statistic)

    def promise(
        self,
        label: str,
        statistic: str = "p50",
        *,
        unit: str = "ms",
        goal: float | None = None,
        against: str = "",
        times: float | None = None,
        more: bool = False,
    ) -> Promise:
        """Return what was promised of one number of a series, beside the same of a reference."""
        return Promise(
            what=label if self.figure(label, "count") == 1 else f"{label}: {statistic}",
            unit=unit,
            ours=self.figure(label, statistic),
            goal=goal,
            reference=self.figure(against, statistic),
            against=against,
            times=times,
            more=more,
            failed=int(self.figure(label, "failed") or 0),
            note="refused" if label in self.absent else "",
        )

    def over(self, label: str, base: str, *, unit: str, goal: float | None = None) -> Promise:
        """Return what was promised of the median of a series, less the median of another."""
        whole, less = self.figure(label), self.figure(base)
        return Promise(
            what=f"{label}, over {base}",
            unit=unit,
            ours=None if whole is None or less is None else whole - less,
            goal=goal,
            failed=int(self.figure(label, "failed") or 0),
        )

    def distributions(self) -> dict[str, dict[str, float]]:
        """Return count, failures, percentiles and extremes of every series."""
        series: dict[str, list[Raw]] = defaultdict(list)
        for row in self.raw:
            if row.round:
                series[row.label].append(row)
        return {label: distribution([row.figure for row in rows]) for label, rows in series.items()}


def distribution(figures: Sequence[float | None]) -> dict[str, float]:
    """Return count, failures (``None``), success rate, percentiles and extremes."""
    good = sorted(figure for figure in figures if figure is not None)
    numbers: dict[str, float] = {
        "count": len(figures),
        "failed": len(figures) - len(good),
        "success_rate": len(good) / len(figures) if figures else 0.0,
    }
    if good:
        # The nearest rank: a figure that was measured, and never one between two.
        ranks = {f"p{each}": -(-each * len(good) // 100) - 1 for each in PERCENTILES}
        numbers |= {name: good[max(rank, 0)] for name, rank in ranks.items()}
        numbers |= {"min": good[0], "max": good[-1]}
    return numbers


def main(
    name: str, about: str | None, count: int, body: Callable[[Run], Awaitable[list[Promise]]]
) -> int:
    """Run a script: read its arguments, measure, print the table, write the JSON.

    Args:
        name: The script's name.
        about: Its docstring.
        count: How many rounds, or sandboxes, by default.
        body: Measures, and returns the promises.

    Returns:
        0, or 1 if ``--check`` was given and a promise is not kept.
    """
    about = about or name
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=count, help=f"by default {count}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where raw rows are written")
    parser.add_argument("--state-dir", type=Path, help="kept, with its templates, for the next run")
    parser.add_argument("--check", action="store_true", help="end with 1 if a promise is not kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sandbox-sdk-bench-") as folder:
        state: Path = arguments.state_dir or Path(folder)
        state.mkdir(parents=True, exist_ok=True)
        run = Run(arguments.count, state)
        surroundings = machine(state)
        noise = Noise()
        promises = anyio.run(body, run)
        found = noise.told()
    print(f"{name}: {about.splitlines()[0]}\n")
    print(table.plain(promises), end="\n\n")
    print(table.distributions(run.distributions()), end="\n\n")
    print("\n".join([*run.notes, *(f"{each}: {why}" for each, why in run.absent.items())]))
    print(described(found))
    if arguments.json is not None:
        told = {"benchmark": name, "machine": {**surroundings, **found}, **_told(run, promises)}
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")
    return int(arguments.check and any(promise.met == "no" for promise in promises))


def _told(run: Run, promises: Sequence[Promise]) -> dict[str, Any]:
    return {
        "command": sys.argv,
        "count": run.count,
        "promises": [promise.told() for promise in promises],
        "distributions": run.distributions(),
        "absent": run.absent,
        "notes": run.notes,
        "raw": [attrs.asdict(row) for row in run.raw],
    }
