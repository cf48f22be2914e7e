"""Model calls that scorers make: checked before the run, recorded, budgeted, never made twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import ConfigError, ModelError
from sandbox_sdk.experiments.allowance import Allowance
from sandbox_sdk.experiments.batches.batch_config import BatchConfig
from sandbox_sdk.experiments.batches.concurrency import Concurrency, QueuedProvider, Ticket
from sandbox_sdk.experiments.batches.paid import output_of
from sandbox_sdk.experiments.batches.plan import PlannedTrial
from sandbox_sdk.experiments.budgets.spending import BudgetGate, Spending
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.model_call import ModelCaller
from sandbox_sdk.experiments.models.base import ModelOutput
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.ledger import GRADER
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.results.outcome import Outcome, Stopped
from sandbox_sdk.experiments.scorers.graded import graders_of


async def check_graders(
    batch: BatchConfig, models: ModelRegistry
) -> list[tuple[str, ExperimentConfig]]:
    """Return what asks a batch's graders, each with its path, if they can be called.

    Raises:
        ConfigError: A grader cannot be what its scorer says.
        ModelError: There is no key, no such model, or nothing at its address.
    """
    # Where every answer comes from a cassette, a grader's does too.
    replays = all(condition.config.cache == "replay" for condition in batch.conditions)
    found: list[tuple[str, ExperimentConfig]] = []
    for index, grader in graders_of(batch.scorers):
        path = f"batch.scorers[{index}]"
        try:
            await models.check(attrs.evolve(grader.asking, cache="replay" if replays else "off"))
        except ConfigError as error:
            faults = tuple(line.replace("experiment", path, 1) for line in error.faults)
            raise ConfigError("\n".join(faults), faults=faults) from None
        found.append((path, grader.asking))
    return found


class Grading:
    """The graders of one run.

    Args:
        run: The run.
        models: The client's models.
        concurrency: The places among their callers.
        gate: The run's budget.
    """

    def __init__(
        self, run: OpenRun, models: ModelRegistry, concurrency: Concurrency, gate: BudgetGate
    ) -> None:
        self._run = run
        self._models = models
        self._concurrency = concurrency
        self._gate = gate
        self._asking: dict[str, anyio.Event] = {}

    def of(self, trial: PlannedTrial, recorder: Recorder) -> TrialGraders:
        """Return what calls graders for one attempt, whose recorder notes the calls."""
        return TrialGraders(self, trial, recorder)

    async def known(self, key: str) -> ModelOutput | None:
        """Return the answer that the run has for a key, if it has one.

        Raises:
            StateError: It cannot be read.
        """
        if (start := self._run.ledger.graded.get(key)) is None:
            return None
        event = await anyio.to_thread.run_sync(self._run.event_at, start)
        return output_of(event.data)

    @asynccontextmanager
    async def alone(self, key: str) -> AsyncGenerator[None]:
        """Wait until no other trial asks what a key stands for, and let none while this lasts."""
        while (other := self._asking.get(key)) is not None:
            await other.wait()
        self._asking[key] = anyio.Event()
        try:
            yield
        finally:
            self._asking.pop(key).set()

    async def ask(
        self,
        config: ExperimentConfig,
        messages: Sequence[Mapping[str, Any]],
        key: str,
        *,
        trial: PlannedTrial,
        recorder: Recorder,
        call: int,
    ) -> ModelOutput:
        """Return a grader's answer, which is recorded before it is returned.

        Args:
            config: What asks it, but for the messages.
            messages: What it is asked.
            key: What the answer is known by.
            trial: The trial that is judged.
            recorder: Notes the call.
            call: The call's number in the attempt.

        Raises:
            ModelError: There was no answer, or the budget has no room for it.
            StateError: The call cannot be recorded; it was not sent then.
        """
        provider, request = self._models.request(config)
        if (slots := self._concurrency.slots(config, self._models)) is not None:
            provider = QueuedProvider(provider, Ticket(slots))
        caller = ModelCaller(
            provider,
            config.retries,
            recorder,
            Allowance(config.limits),
            Spending(self._gate, self._models.priced(config), trial.condition.label),
            self._models.cassette(trial.config),
            role=GRADER,
            key=key,
        )
        try:
            return await caller.ask(attrs.evolve(request, messages=tuple(messages), call=call))
        except Stopped as stopped:
            raise ModelError(_why(stopped.outcome), model=config.model) from None


class TrialGraders:
    """Calls graders for one attempt, as scorers ask.

    Args:
        grading: The graders of its run.
        trial: The trial that is judged.
        recorder: Notes the calls.
    """

    def __init__(self, grading: Grading, trial: PlannedTrial, recorder: Recorder) -> None:
        self._grading = grading
        self._trial = trial
        self._recorder = recorder
        self._calls = 0

    async def grade(
        self, config: ExperimentConfig, messages: Sequence[Mapping[str, Any]], *, key: str
    ) -> ModelOutput:
        """Return the model's answer; one that is known for ``key`` is not asked for again.

        Raises:
            ModelError: There was no answer, or the budget has no room for it.
            StateError: The call cannot be recorded; it was not sent then.
        """
        async with self._grading.alone(key):
            if (known := await self._grading.known(key)) is not None:
                return known
            self._calls += 1
            return await self._grading.ask(
                config,
                messages,
                key,
                trial=self._trial,
                recorder=self._recorder,
                call=self._calls,
            )


def _why(outcome: Outcome) -> str:
    """Return in words why a grader's call came to nothing."""
    if outcome.error is not None:
        return f"{outcome.error.type}: {outcome.error.message}"
    return f"no answer came: {outcome.limit.type if outcome.limit else outcome.state}"
