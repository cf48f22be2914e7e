"""Trials taken from another run where all that decides them is equal, scored anew if need be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
import attrs

from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.batches.datasets import to_json
from sandbox_sdk.experiments.batches.plan import PlannedTrial
from sandbox_sdk.experiments.batches.scoring import Scoring
from sandbox_sdk.experiments.records.artifacts import artifact_path, read_artifact, store_pieces
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.records.run_folder import read_samples
from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.scorers import Scorer
from sandbox_sdk.values import COUNTED


class Source:
    """A run whose trials may be taken.

    Args:
        record: The run.
        keys: The keys of the trials that are wanted.
    """

    def __init__(self, record: RunRecord, keys: Iterable[str]) -> None:
        self.record = record
        wanted = set(keys)
        self._places = {
            key: index
            for index, key in enumerate(record.keys)
            if key in wanted and record.ledger.row(index).state in COUNTED
        }
        self._samples = {
            row["id"]: digest(row) for row in read_samples(record.folder, record.payloads)
        }

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def unscored_by(self, trial: PlannedTrial, scorers: Iterable[Scorer]) -> list[Scorer]:
        """Return the scorers that have not judged a trial that is taken."""
        known = self._verdicts(trial)
        return [scorer for scorer in scorers if scorer.digest not in known]

    def _verdicts(self, trial: PlannedTrial) -> set[str]:
        """Return the digests of the scorers whose verdict on a trial still holds.

        None does where the sample has another target or other metadata now.
        """
        told = self._samples.get(trial.sample.id)
        if told is not None and told != digest(to_json(trial.sample)):
            return set()
        scores = self.record.ledger.row(self._places[trial.key]).scores or {}
        return {verdict.digest for verdict in scores.values() if verdict.value is not None}

    async def take(self, trial: PlannedTrial, run: OpenRun, scoring: Scoring) -> None:
        """Record a trial's attempt in another run as it was, and score it where it was not.

        Raises:
            StateError: It cannot be read or recorded.
        """
        index = self._places[trial.key]
        events = await anyio.to_thread.run_sync(self._read, index)
        await anyio.to_thread.run_sync(self._copy_artifacts, events, run)
        recorder = run.recorder(trial, run.ledger.row(trial.index).attempts + 1)
        known = self._verdicts(trial)
        verdicts: dict[str, dict[str, Any]] = {}
        finished: Mapping[str, Any] = {}
        for event in events:
            data = dict(event.data)
            if event.type == "attempt.started":
                data["reused"] = self.record.id
            elif event.type == "model.requested":
                data["reserved"] = None  # nothing is spent now
            elif event.type == "attempt.finished":
                finished = data
                continue
            elif event.type == "score":
                verdicts[data["digest"]] = data
                continue
            _note(recorder, event.type, data)
        for scorer in scoring.scorers:
            if scorer.digest in known:  # the same scorer, perhaps by another name
                recorder.note("score", **{**verdicts[scorer.digest], "scorer": scorer.name})
        await recorder.commit()  # so that no grader is asked for an answer that was taken over
        await scoring.score(trial, recorder, known=known)
        seconds = events[-1].monotonic - events[0].monotonic
        await recorder.durable("attempt.finished", **{"total_time": seconds, **finished})

    def _read(self, index: int) -> list[Event]:
        """Return the attempt's events, with what they name by its digest alone put in."""
        known: dict[str, Mapping[str, Any]] = {}
        events: list[Event] = []
        for event in self.record.attempt_events(index):
            if event.type in ("message.added", "sandbox.ready"):
                identity = event.data["digest"]
                whole = len(event.data) > 1
                known.setdefault(identity, event.data if whole else self._stored(identity))
                event = attrs.evolve(event, data=known[identity])
            events.append(event)
        return events

    def _stored(self, identity: str) -> Mapping[str, Any]:
        return self.record.stored(identity).data

    def _copy_artifacts(self, events: list[Event], run: OpenRun) -> None:
        theirs, ours = self.record.payloads, run.payloads
        for sha256 in _artifacts(events):
            source = artifact_path(self.record.folder, sha256, theirs)
            target = artifact_path(run.folder, sha256, ours)
            try:
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                if target.exists():
                    continue
                if theirs.key_id is ours.key_id is None:
                    _link(source, target)
                else:
                    store_pieces(target, read_artifact(self.record.folder, sha256, theirs), ours)
            except OSError as error:
                raise StateError(
                    f"the artifact {source} cannot be taken over: {error.strerror or error}",
                    errno=error.errno,
                ) from error


def _note(recorder: Recorder, type: str, data: dict[str, Any]) -> None:
    match type:
        case "message.added":
            recorder.message(data["message"], opening=True)
        case "sandbox.ready":
            recorder.standing(data["isolation"], data["limits"])
        case _:
            recorder.note(type, **data)


def _artifacts(events: list[Event]) -> Iterator[str]:
    for event in events:
        match event.data:
            case {"artifact": {"sha256": str() as sha256}}:
                yield sha256
            case {"artifacts": [*artifacts]} if event.type == "artifacts.collected":
                yield from (artifact["sha256"] for artifact in artifacts)
            case _:
                pass


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)  # another file system, or one without links
