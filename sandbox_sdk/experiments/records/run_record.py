"""A run as its folder tells it: rows in memory, everything else read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.experiments.records.derive import TrialFacts, derive_result
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.journal import JOURNAL, scan_events
from sandbox_sdk.experiments.records.journal_reader import JournalReader
from sandbox_sdk.experiments.records.ledger import Ledger
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.experiments.records.run_folder import (
    key_id,
    read_keys,
    read_lock,
    read_plan,
    read_samples,
)
from sandbox_sdk.experiments.records.run_lease import is_driven
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.result import ExperimentResult


@attrs.frozen(kw_only=True)
class Place:
    """Which trial of a plan one is.

    Attributes:
        condition: The label of its condition.
        axes: Axis of the grid -> value.
        model: The model that is asked, if one is.
        sample: The sample's id.
        repeat: From 1.
    """

    condition: str
    axes: Mapping[str, Any]
    model: str | None
    sample: str
    repeat: int


# Any: plan and lock are JSON files, shown and copied as they are.
@attrs.frozen(kw_only=True, eq=False)
class RunRecord:
    """A run's plan and how far it has come.

    Attributes:
        folder: The folder.
        id: The run's id.
        sandbox_id: The sandbox it ran in, where that was one for all.
        created_at: Seconds since the epoch.
        live: Whether a process is driving it now.
        plan: What was to be done.
        keys: The trials' keys in plan order.
        samples: The ids of the samples in order.
        ledger: How each trial stands.
        payloads: Keeps what it holds.
        seals: Seals and signs this state folder's runs.
    """

    folder: Path
    id: str
    sandbox_id: str
    created_at: float
    live: bool
    plan: Mapping[str, Any] = attrs.field(repr=False)
    keys: list[str] = attrs.field(repr=False)
    samples: list[str] = attrs.field(repr=False)
    ledger: Ledger = attrs.field(repr=False)
    payloads: Payloads = attrs.field(default=PLAIN, repr=False)
    seals: Seals = attrs.field(factory=Seals, repr=False)
    _reader: JournalReader = attrs.field(
        init=False,
        repr=False,
        default=attrs.Factory(lambda record: _reader_of(record), takes_self=True),
    )

    @property
    def lock(self) -> dict[str, Any] | None:
        """What it was done with; ``None`` if it never came so far."""
        return read_lock(self.folder, self.payloads)

    def place(self, index: int) -> Place:
        """Return where a trial stands in the plan."""
        conditions = self.plan["conditions"]
        rest, condition = divmod(index, len(conditions))
        repeat, sample = divmod(rest, len(self.samples))
        return Place(
            condition=conditions[condition]["label"],
            axes=conditions[condition]["axes"],
            model=conditions[condition]["config"].get("model"),
            sample=self.samples[sample],
            repeat=repeat + 1,
        )

    @property
    def levels(self) -> set[str]:
        """The security levels of its sandboxes."""
        return {each["sandbox"]["security_level"] for each in self.plan["conditions"]}

    @property
    def events(self) -> Iterator[Event]:
        """Its journal, event by event, read from the disk."""
        return (placed.event for placed in scan_events(self.folder / JOURNAL, self.payloads))

    @property
    def result(self) -> ExperimentResult | None:
        """What the run's first trial gave; ``None`` if it has not started or still runs."""
        return self.result_of(0)

    def result_of(self, index: int) -> ExperimentResult | None:
        """Return what the last ended attempt of a trial gave. Reads the disk.

        Args:
            index: The trial's place in the plan.

        Returns:
            The result; ``None`` if no attempt of it has started, or the only one still runs.
        """
        row = self.ledger.row(index)
        if row.end <= row.start:
            return None
        events = self.attempt_events(index)
        return derive_result(self.facts(index), events, self.stored)

    def attempt_events(self, index: int) -> Iterator[Event]:
        """Yield the events of the last ended attempt of a trial. Reads the disk."""
        row = self.ledger.row(index)
        return self._events_of(index, row.start, row.end)

    def results(self) -> Iterator[tuple[int, int, ExperimentResult]]:
        """Yield what every attempt gave, in plan order. Reads the disk.

        Yields:
            The trial's place in the plan, the attempt's number, and what it gave.
        """
        earlier = self._earlier_attempts()
        for index in range(len(self.keys)):
            for number, start, end in earlier.get(index, ()):
                events = self._events_of(index, start, end)
                result = derive_result(self.facts(index), events, self.stored)
                if result is not None:
                    yield index, number, result
            if (last := self.result_of(index)) is not None:
                yield index, self.ledger.row(index).attempts, last

    def _earlier_attempts(self) -> dict[int, list[tuple[int, int, int]]]:
        """Return number, start and end of all attempts but the last, of trials with several."""
        rows = self.ledger.rows
        places = {
            self.keys[index]: index
            for index, row in enumerate(rows)
            if row is not None and row.attempts > 1
        }
        found: dict[int, list[tuple[int, int, int]]] = {}
        for placed in scan_events(self.folder / JOURNAL, self.payloads) if places else ():
            event = placed.event
            index = places.get(event.trial or "")
            if index is None or placed.start >= self.ledger.row(index).start:
                continue
            spans = found.setdefault(index, [])
            if event.type == "attempt.started":
                spans.append((event.attempt or 1, placed.start, placed.end))
            elif spans:
                spans[-1] = (*spans[-1][:2], placed.end)
        return found

    def _events_of(self, index: int, start: int, end: int) -> Iterator[Event]:
        return self._reader.between(start, end, self.keys[index])

    def facts(self, index: int) -> TrialFacts:
        """Return what the plan says of a trial."""
        condition = self.plan["conditions"][index % len(self.plan["conditions"])]
        return TrialFacts(
            name=self.plan["config"].get("name"),
            config_digest=condition["config_digest"],
            model=condition["config"].get("model"),
            sdk=self.plan["sdk"],
            sandbox=self.sandbox_id or None,
        )

    def stored(self, identity: str) -> Event:
        """Return the event that stored a message or a sandbox's standing. Reads the disk."""
        return self._reader.at(self.ledger.stored[identity])


def _reader_of(record: RunRecord) -> JournalReader:
    return JournalReader(record.folder / JOURNAL, record.payloads)


def read_run(folder: Path, seals: Seals | None = None) -> RunRecord:
    """Return a run from its folder, everything rebuilt from its journal alone. Reads the disk.

    Args:
        folder: The folder.
        seals: Opens it, if it is sealed.

    Raises:
        KeyNotFound: It is sealed, and its key is not here.
        IntegrityError: It is sealed, and something of it was changed.
        StateError: The folder is no run's, or is damaged.
    """
    seals = seals or Seals()
    payloads = seals.of(folder.name, key_id(folder))
    plan = read_plan(folder, payloads)
    keys = read_keys(folder, plan, payloads)
    places = {key: index for index, key in enumerate(keys)}
    # Looked at before reading: a run that ends in between is read complete.
    live = is_driven(folder)
    ledger, created = scan(folder, Ledger(keys, places.get), payloads)
    if not live:
        ledger.close()
    return RunRecord(
        folder=folder,
        id=plan["run"],
        sandbox_id=plan["sandbox"] or "",
        created_at=created,
        live=live,
        plan=plan,
        keys=keys,
        samples=[row["id"] for row in read_samples(folder, payloads)] or ["1"],
        ledger=ledger,
        payloads=payloads,
        seals=seals,
    )


def scan(folder: Path, ledger: Ledger, payloads: Payloads) -> tuple[Ledger, float]:
    """Let a ledger take a run's whole journal; return it and when the run began. Reads the disk.

    Raises:
        IntegrityError: It is sealed, and an event was changed, moved or is another run's.
        StateError: The journal cannot be read, or is damaged.
    """
    created: float | None = None
    journal = folder / JOURNAL
    if journal.exists():
        for placed in scan_events(journal, payloads):
            if created is None:
                created = placed.event.time
            ledger.take(placed.event, placed.start, placed.end)
    return ledger, folder.stat().st_mtime if created is None else created
