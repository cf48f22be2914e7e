"""What a batch gave: totals that are true, and trials that are read when they are looked at."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import attrs

from sandbox_sdk.errors import SandboxNotFound
from sandbox_sdk.experiments.records.ledger import PossiblyBilled, Verdict
from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.results.compare_runs import RunComparison, Side, compare_runs
from sandbox_sdk.experiments.results.export import export_run
from sandbox_sdk.experiments.results.result import STATUS, ExperimentResult
from sandbox_sdk.experiments.results.scores_table import RULE, ConditionScore, condition_scores
from sandbox_sdk.experiments.results.tables import NOT_RUN, scorer_names, trial_row
from sandbox_sdk.values import COUNTED, AttemptState

RunStatus = Literal["complete", "partial", "degraded"]
"""Whether every trial came to its last state, some did not, or something was not recorded."""

_MOST_SHOWN = 20


@attrs.frozen(kw_only=True, eq=False)
class Trial:
    """One trial of a run.

    Attributes:
        index: Its place in the plan, from 0.
        key: SHA-256 of what decides it; equal keys mean that the same was asked.
        condition: The label of its condition.
        axes: Axis of the grid -> value.
        sample: The sample's id.
        repeat: From 1.
        model: The model that was asked, if one was.
        state: How its last attempt ended; ``None`` if none has.
        stop_reason: Why the model ended its last answer.
        scores: Name of the scorer -> its value, label and digest.
        attempts: How many attempts there were.
        input_tokens: Tokens sent, answers bought before included.
        output_tokens: Tokens answered, likewise.
        cost: US dollars; ``None`` is unknown.
        total_time: Seconds of its last attempt.
        error: The code of the error that ended it.
        limit: The limit that ended it.
        replayed: Calls whose answer was bought by an earlier attempt.
        reused: The run that it was taken from.
    """

    index: int
    key: str
    condition: str
    axes: Mapping[str, Any] = attrs.field(repr=False)
    sample: str
    repeat: int
    model: str | None
    state: AttemptState | None
    stop_reason: str | None
    scores: Mapping[str, Verdict] = attrs.field(repr=False)
    attempts: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    total_time: float
    error: str | None
    limit: str | None
    replayed: int
    reused: str | None
    _record: RunRecord = attrs.field(repr=False, alias="record")

    @property
    def status(self) -> str:
        """The state in one word of four, or ``not_run``."""
        return STATUS[self.state] if self.state else NOT_RUN

    @property
    def result(self) -> ExperimentResult | None:
        """All that its last attempt gave, read from the disk; ``None`` if none has ended."""
        return self._record.result_of(self.index)


class Trials(Sequence[Trial]):
    """The trials of a run in plan order; each is made when it is looked at.

    Args:
        record: The run.
        indices: Which of them; by default all.
    """

    def __init__(self, record: RunRecord, indices: Sequence[int] | None = None) -> None:
        self._record = record
        self._indices = range(len(record.keys)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Trial]:
        return (trial_at(self._record, index) for index in self._indices)

    @overload
    def __getitem__(self, at: int | str) -> Trial: ...
    @overload
    def __getitem__(self, at: slice) -> Trials: ...
    def __getitem__(self, at: int | str | slice) -> Trial | Trials:
        """Return a trial by its place or key, or some of them by a slice.

        Raises:
            IndexError: There is none at this place.
            SandboxNotFound: There is none with this key.
        """
        if isinstance(at, slice):
            return Trials(self._record, self._indices[at])
        if isinstance(at, str):
            for index in self._indices:
                if self._record.keys[index] == at:
                    return trial_at(self._record, index)
            raise SandboxNotFound(f"the run {self._record.id} has no trial with the key {at!r}")
        return trial_at(self._record, self._indices[at])

    def __repr__(self) -> str:
        return f"<{len(self)} trials of {self._record.id}>"


def trial_at(record: RunRecord, index: int) -> Trial:
    """Return a trial of a run by its place in the plan."""
    row, place = record.ledger.row(index), record.place(index)
    return Trial(
        index=index,
        key=record.keys[index],
        condition=place.condition,
        axes=place.axes,
        sample=place.sample,
        repeat=place.repeat,
        model=place.model,
        state=row.state,
        stop_reason=row.stop_reason,
        scores=row.scores or {},
        attempts=row.attempts,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost=None if row.cost is None else float(row.cost),
        total_time=row.total_time,
        error=row.error,
        limit=row.limit,
        replayed=row.replayed,
        reused=row.reused,
        record=record,
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RunResult:
    """What a run of many trials gave.

    Attributes:
        id: The run's id.
        name: The user's name for it.
        folder: Where it is kept.
        status: Whether it is complete; ``degraded`` is one of which something was not recorded.
        planned: How many trials there are.
        kept: Trials that were done before this call.
        notices: What a reader should know, each once.
        unrecorded: Keys of the trials whose end could not be recorded.
        possibly_billed: Calls that were sent and of which no answer was recorded.
    """

    id: str
    name: str | None
    folder: Path
    status: RunStatus
    planned: int
    kept: int = 0
    notices: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    possibly_billed: tuple[PossiblyBilled, ...] = ()
    _record: RunRecord = attrs.field(alias="record")

    @property
    def key_id(self) -> str | None:
        """The id of the key that the run is sealed with; ``None`` if it is not."""
        return self._record.payloads.key_id

    @property
    def trials(self) -> Trials:
        """All trials in plan order, each read when it is looked at."""
        return Trials(self._record)

    @property
    def states(self) -> Mapping[str, int]:
        """How many trials are in each state, ``not_run`` included."""
        found = Counter({state.value: n for state, n in self._record.ledger.states.items() if n})
        if rest := self.planned - found.total():
            found[NOT_RUN] = rest
        return dict(found)

    @property
    def counted(self) -> int:
        """Trials that count in rates."""
        return self._record.ledger.counted

    @property
    def scores(self) -> tuple[ConditionScore, ...]:
        """The mean of each scorer in each condition, with its 95 % interval and number."""
        return condition_scores(self._record)

    @property
    def rule(self) -> str:
        """Which trials count, as it is printed with every rate."""
        return RULE

    def failures(self) -> Trials:
        """Return the trials whose last attempt did not complete."""
        rows = self._record.ledger.rows
        failed = [
            index
            for index, row in enumerate(rows)
            if row is not None and row.state not in (None, AttemptState.COMPLETED)
        ]
        return Trials(self._record, failed)

    def compare(self, other: RunResult, *, scorer: str | None = None) -> RunComparison:
        """Compare this run, as the first, with another: pairs, flips, a test, intervals.

        Args:
            other: The second run.
            scorer: Only by this scorer; by default by all that both have.

        Raises:
            ConfigError: There is nothing to compare.
        """
        return compare_runs(Side(record=self._record), Side(record=other._record), scorer=scorer)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows of ``trials.jsonl``."""
        names = scorer_names(self._record)
        return [trial_row(self._record, index, names) for index in range(self.planned)]

    def to_pandas(self) -> Any:  # Any: pandas is no dependency, so its types are not known
        """Return the rows of ``trials.jsonl`` as a data frame, with the axes as columns.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd  # pyright: ignore[reportMissingTypeStubs] - no dependency

        rows = self.to_dicts()
        for index, row in enumerate(rows):
            row |= self._record.place(index).axes
        return pd.DataFrame(rows)

    def export(self, path: str | Path) -> Path:
        """Write the run as a folder that opens anywhere, below ``path``, and return it.

        It is signed if there is a master key, and always if a sandbox was of level ``high``.

        Raises:
            ExportError: The run is still driven, something else is in the way, or the disk is full.
        """
        seals = self._record.seals
        return export_run(self.folder, Path(path), seals.signer(self._record.levels), seals)

    def __repr__(self) -> str:
        return f"<RunResult {self.summary()}>"

    def summary(self) -> str:
        """Return the run in one line; every number says of how many."""
        excluded = sum(n for state, n in self.states.items() if state not in _COUNTED_WORDS)
        facts = [
            f"{self.id} {self.status}",
            f"{self.counted:,} of {self.planned:,} trials count",
        ]
        if excluded:
            facts.append(f"{excluded:,} do not ({_listed(self.states, _COUNTED_WORDS)})")
        if self._record.ledger.mock:
            facts.append("a mock: the answers are scripted")
        facts += [str(score) for score in self.scores[:_MOST_SHOWN]]
        return "; ".join(facts)

    def _repr_html_(self) -> str:
        """Return the run as a table for notebooks; nothing in it can be markup of a model's."""
        lines = [f"<p><b>{html.escape(self.summary())}</b></p>"]
        if scores := self.scores:
            head = "".join(f"<th>{name}</th>" for name in ("condition", "scorer", "score", "n"))
            body = "".join(
                "<tr>"
                + "".join(
                    f"<td>{html.escape(cell)}</td>"
                    for cell in (each.condition, each.scorer, each.shown, each.told)
                )
                + "</tr>"
                for each in scores
            )
            lines.append(f"<table><tr>{head}</tr>{body}</table><p>{html.escape(RULE)}</p>")
        lines += [f"<p>{html.escape(notice)}</p>" for notice in self.notices]
        return "".join(lines)


_COUNTED_WORDS = frozenset(state.value for state in COUNTED)


def _listed(states: Mapping[str, int], without: frozenset[str]) -> str:
    return ", ".join(f"{state} {n:,}" for state, n in states.items() if state not in without)
