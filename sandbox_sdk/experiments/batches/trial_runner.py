"""Runs one trial: attempts in fresh sandboxes until one comes to an end that counts."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Protocol

import anyio
import attrs

from sandbox_sdk.errors import SandboxBusy, SandboxError, StateError
from sandbox_sdk.experiments.attempt import Attempt, Surroundings
from sandbox_sdk.experiments.batches.concurrency import Ticket
from sandbox_sdk.experiments.batches.plan import PlannedTrial
from sandbox_sdk.experiments.batches.scoring import Scoring
from sandbox_sdk.experiments.budgets.budget_refusals import Refusal
from sandbox_sdk.experiments.budgets.spending import BudgetGate, OutOfBudget
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.ledger import MOST_INFRA_FAILURES
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.results.outcome import Outcome, failed, is_denied
from sandbox_sdk.experiments.results.result import LimitHit, ResourceUse
from sandbox_sdk.values import COUNTED, AttemptState, Workplace

log = logging.getLogger("sandbox_sdk.experiments")

_RECORD_SECONDS = 10.0  # for the last words of a cancelled attempt
_RETRY_SECONDS = (0.1, 1.0)
# Before the second and third attempt of what infrastructure failed: most such failures pass.


class Places(Protocol):
    """Gives each attempt its sandbox, its place on this machine and among its model's callers."""

    def place(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Ticket | None]:
        """Wait until the trial may start, and hold its place while the context lasts."""
        ...

    def workplace(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Workplace | None]:
        """Make the sandbox of one attempt, not set up yet; ``None`` where none is needed."""
        ...


class OneSandbox:
    """The places of a run that is done in one sandbox, which its owner keeps.

    Args:
        workplace: The sandbox.
    """

    def __init__(self, workplace: Workplace) -> None:
        self._workplace = workplace

    def place(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Ticket | None]:
        """Start at once: the sandbox is there."""
        return nullcontext()

    def workplace(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Workplace | None]:
        """Give the sandbox, and leave it as it is."""
        return nullcontext(self._workplace)


class TrialRunner:
    """Runs the trials of one run, each when it is asked to.

    Args:
        run: The run.
        models: The client's models.
        places: Gives attempts their sandboxes.
        gate: The budget that they share.
        scoring: Lets scorers judge what they gave.
    """

    def __init__(
        self,
        run: OpenRun,
        models: ModelRegistry,
        places: Places,
        *,
        gate: BudgetGate | None = None,
        scoring: Scoring | None = None,
    ) -> None:
        self._run = run
        self._models = models
        self._places = places
        self._gate = gate
        self._scoring = scoring

    async def run(self, trial: PlannedTrial) -> Outcome:
        """Run a trial to its last state, again while infrastructure fails it, and return its end.

        Infrastructure may fail it three times without its getting further.

        Raises:
            StateError: Something cannot be recorded; nothing was sent after that.
            SandboxBusy: Another process has taken the run over.
        """
        if (refusal := self._refusal(trial)) is not None:
            outcome = OutOfBudget(refusal).outcome
            await self._refuse(trial, outcome)
            return outcome
        async with self._places.place(trial) as ticket:
            while True:
                try:
                    outcome = await self.attempt(trial, ticket)
                except (StateError, SandboxBusy):
                    raise
                except SandboxError as error:
                    outcome = failed(AttemptState.INFRA_ERROR, error)  # recorded as this already
                except Exception as error:
                    # Our own mistake must not end the trials of all others.
                    log.exception("trial.failed", extra={"trial": trial.key})
                    outcome = failed(AttemptState.INFRA_ERROR, _as_sandbox_error(error))
                failures = self._run.ledger.unfinished(trial.index).failures
                is_final = failures >= MOST_INFRA_FAILURES or is_denied(outcome)
                if outcome.state is not AttemptState.INFRA_ERROR or is_final:
                    return outcome
                await anyio.sleep(_RETRY_SECONDS[failures - 1])

    async def attempt(self, trial: PlannedTrial, ticket: Ticket | None = None) -> Outcome:
        """Run one attempt of a trial. However it ends, its end is recorded, and durable on return.

        Raises:
            SandboxError: The sandbox made the attempt impossible.
            StateError: Something cannot be recorded.
        """
        number = self._run.ledger.row(trial.index).attempts + 1
        recorder = self._run.recorder(trial, number)
        ending = _Ending()
        try:
            ending.outcome = await self._attempt(trial, recorder, ticket, ending)
        except (StateError, SandboxBusy):
            ending.recordable = False
            raise
        except Exception as error:
            ending.outcome = failed(AttemptState.INFRA_ERROR, _as_sandbox_error(error))
            raise
        finally:
            if ending.recordable:
                # A cancelled attempt has its end recorded too, but may not take for ever.
                with anyio.move_on_after(_RECORD_SECONDS, shield=True):
                    await _record(ending, recorder)
                if self._gate is not None:
                    cpu = ending.usage.cpu_seconds if ending.usage else None
                    label, state = trial.condition.label, ending.outcome.state
                    self._gate.budget.attempt_ended(label, state, cpu)
        return ending.outcome

    async def _attempt(
        self, trial: PlannedTrial, recorder: Recorder, ticket: Ticket | None, ending: _Ending
    ) -> Outcome:
        around = Surroundings(
            folder=self._run.folder,
            models=self._models,
            lock=self._run.lock,
            condition=trial.condition.label,
            wrap=ticket.queue if ticket else None,
            past=self._run.past(trial),
            gate=self._gate,
            payloads=self._run.payloads,
        )
        outcome: Outcome | None = None
        with anyio.move_on_after(self._gate.budget.seconds_left if self._gate else None):
            async with self._places.workplace(trial) as workplace:
                attempt = Attempt(trial.config, workplace, recorder, around)
                if workplace is None:
                    outcome = await attempt.run()
                else:
                    async with _metered(attempt, ending):
                        outcome = await attempt.run()
        if outcome is None:
            outcome = self._out_of_time()
        if self._scoring is not None and outcome.state in COUNTED:
            if ticket is not None:
                ticket.give()  # a grader may be the same model, and must not wait for its trials
            await self._scoring.score(trial, recorder)
        return outcome

    def _out_of_time(self) -> Outcome:
        seconds = self._gate.budget.limits.time if self._gate else None
        hit = LimitHit(type="budget.time", limit=seconds, used=seconds)
        return Outcome(state=AttemptState.BUDGET, limit=hit)

    def _refusal(self, trial: PlannedTrial) -> Refusal | None:
        if self._gate is None:
            return None
        return self._gate.budget.may_start(trial.condition.label)

    async def _refuse(self, trial: PlannedTrial, outcome: Outcome) -> None:
        """Record that nothing was done, because the budget has no room."""
        number = self._run.ledger.row(trial.index).attempts + 1
        recorder = self._run.recorder(trial, number)
        recorder.note(
            "attempt.started", sandbox=None, provider=None, seed=trial.config.sampling_seed
        )
        await _record(_Ending(outcome=outcome), recorder)


_CANCELLED = Outcome(state=AttemptState.CANCELLED)


@attrs.define
class _Ending:
    """How an attempt ends, as far as is known; one that is never told otherwise was cancelled."""

    outcome: Outcome = _CANCELLED
    usage: ResourceUse | None = None
    recordable: bool = True


@asynccontextmanager
async def _metered(attempt: Attempt, ending: _Ending) -> AsyncGenerator[None]:
    """Read what the sandbox used before it is gone, however the attempt ends."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            ending.usage = await attempt.usage()


async def _record(ending: _Ending, recorder: Recorder) -> None:
    outcome = ending.outcome
    await recorder.durable(
        "attempt.finished",
        state=outcome.state,
        limit=attrs.asdict(outcome.limit) if outcome.limit else None,
        error=attrs.asdict(outcome.error) if outcome.error else None,
        resource_usage=attrs.asdict(ending.usage) if ending.usage else None,
    )


def _as_sandbox_error(error: Exception) -> SandboxError:
    if isinstance(error, SandboxError):
        return error
    return SandboxError(f"an error of the SDK itself, {type(error).__name__}: {error}")
