"""What a run has done so far, from its journal: one small row per trial, and totals.

The same code takes events as they become durable and as they are read back, so what is shown
while a run goes on, what a resumed run starts from, and its tables cannot differ.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from sys import intern
from typing import Any

import attrs

from sandbox_sdk.experiments.budgets.cost import Cost, total_cost
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.values import COUNTED, AttemptState

GRADER = "grader"
"""The role of a model call that a scorer makes."""

OPEN_STATES = frozenset({AttemptState.CANCELLED, AttemptState.BUDGET, AttemptState.LOST})
"""States that are not a trial's last: calling again takes it up."""

MOST_INFRA_FAILURES = 3
"""Attempts that may fail for infrastructure without getting further."""


@attrs.frozen
class Verdict:
    """What a scorer said of a trial.

    Attributes:
        value: From 0 to 1; ``None`` where it came to no verdict.
        label: The value in a word.
        digest: Which scorer it was.
    """

    value: float | None
    label: str | None
    digest: str


@attrs.define(kw_only=True)
class Row:
    """How a trial stands; ``state`` is ``None`` until an attempt ended.

    Attributes:
        state: How its last attempt ended.
        attempts: How many there were, the running one included.
        started_at: Seconds since the epoch.
        total_time: Seconds of its last attempt.
        model_time: Of them, in model calls.
        tool_time: Of them, in tools.
        cpu_seconds: CPU time of its sandbox.
        memory_peak_bytes: The most memory of its sandbox.
        stop_reason: Why the model ended its last answer.
        output_digest: SHA-256 of its output; ``None`` without one.
        input_tokens: Tokens sent, replayed calls included.
        output_tokens: Tokens answered, replayed calls included.
        requests: Requests.
        tool_calls: Tool calls.
        cost: What its calls cost, in US dollars; ``None`` is unknown.
        limit: The limit that ended it.
        error: The code of the error that ended it.
        replayed: Calls whose answer was bought before.
        mock: Whether the answers are scripted.
        reused: The run it was taken from.
        scores: Name of the scorer -> what it said.
        start: Where its last ended attempt begins in the journal.
        end: Where that attempt ends.
    """

    state: AttemptState | None = None
    attempts: int = 0
    started_at: float = 0.0
    total_time: float = 0.0
    model_time: float = 0.0
    tool_time: float = 0.0
    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    stop_reason: str | None = None
    output_digest: bytes | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    tool_calls: int = 0
    cost: Decimal | None = None
    limit: str | None = None
    error: str | None = None
    replayed: int = 0
    mock: bool = False
    reused: str | None = None
    scores: dict[str, Verdict] | None = None
    start: int = 0
    end: int = 0

    @property
    def done(self) -> bool:
        """Whether the trial has come to its last state."""
        return self.state is not None and self.state not in OPEN_STATES


@attrs.define(kw_only=True)
class _Running:
    """An attempt that has not ended, as far as the journal tells."""

    row: Row
    attempt: int
    monotonic: float
    asked: int | None = None
    grading: set[int] = attrs.field(factory=set[int])
    answered: int = 0
    costs: list[Cost | None] = attrs.field(factory=list["Cost | None"])


@attrs.define(kw_only=True)
class Unfinished:
    """What is known of a trial that is not done: what was paid for it, and how it failed.

    Attributes:
        paid: Number of the call -> the request's digest, and where its answer stands.
        failures: Attempts that failed for infrastructure without getting further.
        furthest: Answered calls of the attempt that got furthest.
    """

    paid: dict[int, tuple[str, int]] = attrs.field(factory=dict[int, tuple[str, int]])
    failures: int = 0
    furthest: int = -1


@attrs.frozen(kw_only=True)
class PossiblyBilled:
    """A call that was sent and whose answer was never recorded.

    Attributes:
        trial: The trial's key.
        attempt: The attempt's number.
        call: The call's number in it.
        role: ``grader`` for a scorer's call; ``None`` for one of the model under test.
    """

    trial: str
    attempt: int
    call: int
    role: str | None = None


class Ledger:
    """Adds up a run's events.

    Args:
        keys: The trials' keys in plan order.
        index: Key of a trial -> its place in the plan; ``None`` for one of no trial's.
    """

    def __init__(self, keys: Sequence[str], index: Callable[[str], int | None]) -> None:
        self.rows: list[Row | None] = [None] * len(keys)
        self.states: Counter[AttemptState] = Counter()
        self.stored: dict[str, int] = {}
        self.graded: dict[str, int] = {}
        self.possibly_billed: list[PossiblyBilled] = []
        self.sessions = 1
        self.finished = False
        self.diverged = 0
        self.paid_tokens = 0
        self.replayed_calls = 0
        self.events = 0
        self.size = 0
        self._keys = keys
        self._index = index
        self._running: dict[int, _Running] = {}
        self._unfinished: dict[int, Unfinished] = {}

    @property
    def done(self) -> int:
        """Trials that have come to their last state."""
        return sum(count for state, count in self.states.items() if state not in OPEN_STATES)

    @property
    def ended(self) -> int:
        """Trials of which an attempt has ended."""
        return self.states.total()

    @property
    def counted(self) -> int:
        """Trials that count in a score's denominator."""
        return sum(count for state, count in self.states.items() if state in COUNTED)

    @property
    def mock(self) -> bool:
        """Whether any trial's answers are scripted."""
        return any(row is not None and row.mock for row in self.rows)

    def row(self, index: int) -> Row:
        """Return how a trial stands."""
        return self.rows[index] or Row()

    def unfinished(self, index: int) -> Unfinished:
        """Return what is known of a trial that is not done."""
        return self._unfinished.setdefault(index, Unfinished())

    def take(self, event: Event, start: int, end: int) -> None:
        """Take the journal's next event, whose line stands from ``start`` to ``end``."""
        self.events, self.size = event.seq, end
        if event.trial is None:
            self._take_of_run(event)
            return
        index = self._index(event.trial)
        if index is None:
            return  # of a trial that a newer version knows
        if event.type == "attempt.started":
            self._start(index, event, start, end)
        elif running := self._running.get(index):
            running.row.end = end
            self._take(index, running, event, start)
        elif event.type == "score":
            self._score(self.row(index), event.data)

    def close(self) -> None:
        """Take attempts that run no more, and never ended, for lost: their driver died."""
        for index in list(self._running):
            self._lose(index)

    def _take_of_run(self, event: Event) -> None:
        if event.type == "run.resumed":
            self.close()
            self.sessions += 1
            self.finished = False
        elif event.type == "run.finished":
            self.finished = True

    def _start(self, index: int, event: Event, start: int, end: int) -> None:
        self._lose(index)
        row = Row(attempts=event.attempt or 1, started_at=event.time, start=start, end=end)
        row.mock = event.data.get("provider") == "mock"
        row.reused = event.data.get("reused")
        self._running[index] = _Running(
            row=row, attempt=event.attempt or 1, monotonic=event.monotonic
        )

    def _lose(self, index: int) -> None:
        """An attempt whose driver died leaves its answers, and perhaps a call that was billed."""
        running = self._running.pop(index, None)
        if running is None:
            return
        self._bill(index, running)
        running.row.state = AttemptState.LOST
        self._put(index, running.row)

    def _bill(self, index: int, running: _Running) -> None:
        """List the calls of an attempt that is over, of which no answer was recorded."""
        if running.asked is None and not running.grading:
            return
        billed = partial(PossiblyBilled, trial=self._keys[index], attempt=running.attempt)
        if running.asked is not None and running.row.reused is None:
            self.possibly_billed.append(billed(call=running.asked))
        for call in sorted(running.grading):
            self.possibly_billed.append(billed(call=call, role=GRADER))

    def _take(self, index: int, running: _Running, event: Event, start: int) -> None:
        row, data = running.row, event.data
        if data.get("role") == GRADER:
            self._grade(running, event, start)
            return
        match event.type:
            case "message.added" | "sandbox.ready":
                if data.get("shared"):
                    self.stored.setdefault(data["digest"], start)
            case "model.requested":
                running.asked = data["call"]
            case "model.failed":
                running.asked = None
            case "model.responded":
                self._answer(index, running, data, start)
            case "tool.finished":
                row.tool_calls += 1
                row.tool_time += data["duration"]
            case "code.finished":
                row.output_digest = _digest(data["text"])
            case "replay.diverged":
                self.diverged += 1
            case "score":
                self._score(row, data)
            case "attempt.finished":
                self._finish(index, running, event)
            case _:
                pass

    def _grade(self, running: _Running, event: Event, start: int) -> None:
        data = event.data
        match event.type:
            case "model.requested" if data["reserved"] is not None:  # bought now, not taken over
                running.grading.add(data["call"])
            case "model.failed":
                running.grading.discard(data["call"])
            case "model.responded":
                self.graded[data["key"]] = start
                if data["call"] in running.grading:
                    usage = data["usage"]
                    self.paid_tokens += usage["input_tokens"] + usage["output_tokens"]
                running.grading.discard(data["call"])
            case _:
                pass

    def _answer(self, index: int, running: _Running, data: Mapping[str, Any], start: int) -> None:
        row, usage = running.row, data["usage"]
        running.asked = None
        running.answered += 1
        row.stop_reason = data["stop_reason"]
        row.output_digest = _digest(data["texts"][0] if data["texts"] else "")
        row.input_tokens += usage["input_tokens"]
        row.output_tokens += usage["output_tokens"]
        row.requests += usage["requests"]
        row.model_time += data["duration"]
        row.mock = data["mock"]
        running.costs.append(Cost.from_json(data["cost"]) if data["cost"] else None)
        if data.get("replayed"):
            row.replayed += 1
            self.replayed_calls += 1
        elif row.reused is None:
            self.paid_tokens += usage["input_tokens"] + usage["output_tokens"]
        if "request" in data:
            self.unfinished(index).paid[data["call"]] = (data["request"], start)

    def _finish(self, index: int, running: _Running, event: Event) -> None:
        del self._running[index]
        row, data = running.row, event.data
        self._bill(index, running)  # given up while they were under way
        row.state = AttemptState(data["state"])
        total = total_cost(running.costs)
        row.cost = None if total is None else total.total
        row.total_time = data.get("total_time", event.monotonic - running.monotonic)
        row.limit = data["limit"]["type"] if data["limit"] else None
        row.error = data["error"]["type"] if data["error"] else None
        if use := data["resource_usage"]:
            row.cpu_seconds, row.memory_peak_bytes = use["cpu_seconds"], use["memory_peak_bytes"]
        self._put(index, row)
        if row.state is AttemptState.INFRA_ERROR:
            known = self.unfinished(index)
            further = running.answered > known.furthest
            known.failures = 1 if further else known.failures + 1
            known.furthest = max(known.furthest, running.answered)
        elif row.done:
            self._unfinished.pop(index, None)

    def _put(self, index: int, row: Row) -> None:
        if (before := self.rows[index]) is not None and before.state is not None:
            self.states[before.state] -= 1
        self.rows[index] = row
        if row.state is not None:
            self.states[row.state] += 1

    def _score(self, row: Row, data: Mapping[str, Any]) -> None:
        verdict = Verdict(data["value"], data["label"], intern(data["digest"]))
        row.scores = {**(row.scores or {}), data["scorer"]: verdict}


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
