"""Scores of a run's trials: what scorers are given, and how what they say is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import ModelError, StateError
from sandbox_sdk.experiments.batches.paid import output_of
from sandbox_sdk.experiments.budgets.spending import BudgetGate, OutOfBudget, Spending
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models import retries
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.artifacts import artifact_path
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.records.run_record import event_at
from sandbox_sdk.experiments.scorers import Score, Scorer, Submission, scored
from sandbox_sdk.values import Sample, Sandboxes

GRADER = "grader"
"""The role of a model call that a scorer makes."""

_LARGEST_ARTIFACTS = 64 * 1024 * 1024


class Scoring:
    """Lets scorers judge attempts of one run.

    Args:
        run: The run.
        scorers: The scorers.
        models: The client's models, for those that ask one.
        sandboxes: Makes the sandboxes that scorers run code in.
        gate: The run's budget.
    """

    def __init__(
        self,
        run: OpenRun,
        scorers: Sequence[Scorer],
        *,
        models: ModelRegistry,
        sandboxes: Sandboxes | None,
        gate: BudgetGate,
    ) -> None:
        self.scorers = tuple(scorers)
        self._run = run
        self._models = models
        self._sandboxes = sandboxes
        self._gate = gate

    async def score(
        self, sample: Sample, recorder: Recorder, condition: str, *, known: frozenset[str]
    ) -> None:
        """Let every scorer judge what an attempt gave, and note what each says.

        Args:
            sample: The sample that it answers.
            recorder: Noted what the attempt did, and notes the scores.
            condition: The condition of its trial.
            known: Digests of scorers that have judged it already.

        Raises:
            StateError: A score cannot be recorded.
        """
        asked = self.scorers
        if known:
            asked = tuple(scorer for scorer in asked if scorer.digest not in known)
        if not asked:
            return
        artifacts: dict[str, bytes] = {}
        if recorder.collected:
            artifacts = await anyio.to_thread.run_sync(_read, self._run.folder, recorder.collected)
        submission = Submission(
            output=recorder.output,
            sample=sample,
            artifacts=artifacts,
            messages=tuple(recorder.said),
        )
        graders = JournalledGraders(self._run, self._models, self._gate, recorder, condition)
        for scorer in asked:
            score: Score = await scored(
                scorer, submission, sandboxes=self._sandboxes, models=graders
            )
            recorder.note("score", **score.to_json())


class JournalledGraders:
    """Calls models for scorers: recorded, within the budget, and never twice for the same.

    Args:
        run: The run.
        models: The client's models.
        gate: The run's budget.
        recorder: Notes the calls.
        condition: The condition of the trial that is judged.
    """

    def __init__(
        self,
        run: OpenRun,
        models: ModelRegistry,
        gate: BudgetGate,
        recorder: Recorder,
        condition: str,
    ) -> None:
        self._run = run
        self._models = models
        self._gate = gate
        self._recorder = recorder
        self._condition = condition
        self._calls = 0

    async def grade(self, model: str, request: ModelRequest, *, key: str) -> ModelOutput:
        """Return the model's answer; one that is known for ``key`` is not asked for again.

        Raises:
            ModelError: There was no answer, or the budget has no room for it.
            StateError: The call cannot be recorded; it was not sent then.
        """
        if (start := self._run.ledger.graded.get(key)) is not None:
            event = await anyio.to_thread.run_sync(event_at, self._run.journal.path, start)
            return output_of(event.data)
        config = ExperimentConfig(model=model, prompt="-")
        provider, named = self._models.request(config)
        request = attrs.evolve(request, model=named.model)
        spending = Spending(self._gate, self._models.priced(config), self._condition)
        self._calls += 1
        told: dict[str, Any] = {"role": GRADER, "call": self._calls, "key": key}
        try:
            reserved = await spending.reserve(request)
        except OutOfBudget as over:
            raise ModelError(f"the budget leaves no room: {over.refusal.message}") from None
        await self._recorder.durable(
            "model.requested",
            **told,
            reserved=reserved,
            provider=provider.name,
            model=named.model,
            request=digest([named.model, request.messages, request.parameters]),
        )

        async def on_retry(error: ModelError, wait: float, sends: int) -> None:
            billed = spending.failed(error)
            await spending.reserve(request)
            await self._recorder.durable(
                "model.retried", **told, sends=sends, wait=wait, billed=billed, error=error.code
            )

        started = anyio.current_time()
        try:
            output = await retries.generate(provider, request, config.retries, on_retry)
        except OutOfBudget as over:
            spending.lost()
            raise ModelError(f"the budget leaves no room: {over.refusal.message}") from None
        except ModelError as error:
            billed = spending.failed(error)
            await self._recorder.durable("model.failed", **told, billed=billed, error=error.code)
            raise
        except BaseException:
            spending.lost()  # nobody knows what was billed
            raise
        charge = spending.answered(output)
        await self._recorder.durable(
            "model.responded",
            **told,
            cost=charge.cost.to_json() if charge.cost else None,
            duration=anyio.current_time() - started,
            **output.to_json(),
        )
        return output


def _read(folder: Path, collected: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the files that an attempt declared, as far as they fit into memory."""
    found: dict[str, bytes] = {}
    left = _LARGEST_ARTIFACTS
    for artifact in collected:
        left -= artifact["size_bytes"]
        if left < 0:
            break
        try:
            found[artifact["path"]] = artifact_path(folder, artifact["sha256"]).read_bytes()
        except OSError as error:
            raise StateError(
                f"the artifact {artifact['path']!r} cannot be read: {error.strerror or error}",
                errno=error.errno,
            ) from error
    return found
