"""Promises beside what was measured: ours, the reference, the ratio, the goal, and whether met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

COLUMNS = ("what", "ours", "reference", "ratio", "goal", "met")
UNITS = {
    "us": 1e6,
    "ms": 1e3,
    "s": 1.0,
    "/s": 1.0,
    "KiB": 1 / 1024,
    "MiB": 1 / 1024**2,
    "MB/s": 1e-6,
    "x": 1.0,
    "": 1.0,
}
"""The unit a figure is shown in -> what seconds, bytes or counts are multiplied by."""


@attrs.frozen(kw_only=True)
class Promise:
    """One figure, and what was promised of it. Figures are seconds, bytes, rates or counts.

    Attributes:
        what: What was measured.
        unit: The unit it is shown in, one of ``UNITS``.
        ours: The figure; ``None`` where it could not be had.
        goal: The bound; ``None`` where nothing was promised.
        reference: The figure of what it is compared with, from the same run.
        against: The reference's name.
        times: How many times better than the reference it is promised to be.
        more: Whether more is better.
        failed: How many of its measurements failed: with one, no promise is kept.
        note: What one must know to read the figure, in a word or two.
    """

    what: str
    unit: str
    ours: float | None
    goal: float | None = None
    reference: float | None = None
    against: str = ""
    times: float | None = None
    more: bool = False
    failed: int = 0
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the reference; below 1 it is worse."""
        if not self.ours or not self.reference:
            return None
        return self.ours / self.reference if self.more else self.reference / self.ours

    @property
    def met(self) -> str:
        """Whether the promise is kept: ``yes``, ``no``, ``unknown``; empty if there is none."""
        if self.goal is None and self.times is None:
            return ""
        if self.failed:
            return "no"
        if self.ours is None or (self.times is not None and self.ratio is None):
            return "unknown"
        kept = self.goal is None or (
            self.ours >= self.goal if self.more else self.ours <= self.goal
        )
        if self.times is not None and self.ratio is not None:
            kept = kept and self.ratio >= self.times
        return "yes" if kept else "no"

    def cells(self) -> tuple[str, ...]:
        """Return it as a row of the table."""
        sign = ">=" if self.more else "<="
        goals = [f"{sign} {self._shown(self.goal)}"] if self.goal is not None else []
        goals += [f">= {self.times:g}x"] if self.times is not None else []
        reference = f"{self._shown(self.reference)} {self.against}" if self.reference else ""
        notes = [f"{self.failed} failed"] if self.failed else []
        notes += [self.note] if self.note else []
        return (
            f"{self.what} ({'; '.join(notes)})" if notes else self.what,
            "-" if self.ours is None else self._shown(self.ours),
            reference,
            "" if self.ratio is None else f"{self.ratio:.3g}x",
            ", ".join(goals),
            self.met,
        )

    def told(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**attrs.asdict(self), "ratio": self.ratio, "met": self.met}

    def _shown(self, figure: float | None) -> str:
        if figure is None:
            return ""
        value = figure * UNITS[self.unit]
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return f"{text} {self.unit}".strip() if self.unit != "/s" else f"{text}/s"


def of_told(row: Mapping[str, Any]) -> Promise:
    """Return the promise that a benchmark's JSON holds."""
    names = {field.name for field in attrs.fields(Promise)}
    return Promise(**{name: value for name, value in row.items() if name in names})


def plain(promises: Iterable[Promise]) -> str:
    """Return the table for a terminal."""
    rows = [COLUMNS, *(promise.cells() for promise in promises)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown(promises: Iterable[Promise]) -> str:
    """Return the table for a page."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(promise.cells() for promise in promises)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def distributions(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the distributions of all series of one benchmark, for a terminal."""
    names = ("count", "failed", "p10", "p50", "p90", "p95", "p99", "min", "max")
    width = max(map(len, found), default=0)
    lines = [f"{'':{width}}" + "".join(f"{name:>10}" for name in names)]
    for label, numbers in found.items():
        shown = (f"{numbers.get(name, float('nan')):>10.4g}" for name in names)
        lines.append(f"{label:{width}}" + "".join(shown))
    return "\n".join(lines)
