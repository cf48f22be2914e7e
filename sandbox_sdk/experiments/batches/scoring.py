"""Scores of a run's trials: what scorers are given, and how what they say is recorded."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio.to_thread
import attrs

from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.batches.graders import Grading
from sandbox_sdk.experiments.batches.plan import PlannedTrial
from sandbox_sdk.experiments.records.artifacts import read_artifact
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.scorers import Score, Scorer, Submission, scored
from sandbox_sdk.values import MIB, Sandboxes, Workplace

_LARGEST_ARTIFACTS = 64 * MIB


class Scoring:
    """Lets scorers judge attempts of one run.

    Args:
        run: The run.
        scorers: The scorers.
        grading: Asks models for those that need one.
        sandboxes: Makes the sandboxes that scorers run code in.
    """

    def __init__(
        self,
        run: OpenRun,
        scorers: Sequence[Scorer],
        *,
        grading: Grading,
        sandboxes: Sandboxes | None,
    ) -> None:
        self.scorers = tuple(scorers)
        self._run = run
        self._grading = grading
        self._sandboxes = sandboxes
        self._metadata = run.plan.metadata

    async def score(
        self, trial: PlannedTrial, recorder: Recorder, *, known: Container[str] = ()
    ) -> None:
        """Let every scorer judge what an attempt gave, and note what each says.

        Args:
            trial: The trial that is judged.
            recorder: Noted what the attempt did, and notes the scores.
            known: Digests of scorers that have judged it already.

        Raises:
            StateError: A score cannot be recorded.
        """
        asked = [scorer for scorer in self.scorers if scorer.digest not in known]
        if not asked:
            return
        artifacts: dict[str, bytes] = {}
        if recorder.collected:
            artifacts = await anyio.to_thread.run_sync(_read, self._run, recorder.collected)
            if left_out := [a["path"] for a in recorder.collected if a["path"] not in artifacts]:
                shown = ", ".join(map(repr, left_out[:5])) + ", ..." * (len(left_out) > 5)
                said = f"artifacts of more than {_LARGEST_ARTIFACTS // MIB} MiB together"
                recorder.note("warning", text=f"{said}: scorers did not get {shown}")
        submission = Submission(
            output=recorder.output,
            sample=trial.sample,
            artifacts=artifacts,
            messages=tuple(recorder.said),
        )
        graders = self._grading.of(trial, recorder)
        sandboxes = None
        if self._sandboxes is not None:
            sandboxes = _Tagged(self._sandboxes, self._metadata[trial.condition.label])
        for scorer in asked:
            score: Score = await scored(scorer, submission, sandboxes=sandboxes, models=graders)
            recorder.note("score", **score.to_json())


@attrs.frozen
class _Tagged:
    """Makes sandboxes with the metadata of the trial's own: an operator's rules about it hold."""

    sandboxes: Sandboxes
    metadata: Mapping[str, str]

    def fresh(
        self, *, files: Mapping[str, str | bytes], **settings: Any
    ) -> AbstractAsyncContextManager[Workplace]:
        """Return a sandbox that holds just ``files`` and is deleted with the context."""
        metadata = {**settings.pop("metadata", {}), **self.metadata}
        return self.sandboxes.fresh(files=files, metadata=metadata, **settings)


def _read(run: OpenRun, collected: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the files that an attempt declared, as far as they fit into memory."""
    found: dict[str, bytes] = {}
    left = _LARGEST_ARTIFACTS
    for artifact in sorted(collected, key=lambda each: each["size_bytes"]):
        left -= artifact["size_bytes"]
        if left < 0:
            break  # the largest are left out, so that one cannot crowd out all others
        try:
            pieces = read_artifact(run.folder, artifact["sha256"], run.payloads)
            found[artifact["path"]] = b"".join(pieces)
        except OSError as error:
            raise StateError(
                f"the artifact {artifact['path']!r} cannot be read: {error.strerror or error}",
                errno=error.errno,
            ) from error
    return found
