"""Runs one trial: attempts in fresh sandboxes until one comes to an end that counts."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Protocol

import anyio
import attrs

from sandbox_sdk.errors import SandboxBusy, SandboxError, StateError
from sandbox_sdk.experiments.attempt import Attempt, Surroundings, Wrap
from sandbox_sdk.experiments.ledger import MOST_INFRA_FAILURES
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.open_run import OpenRun
from sandbox_sdk.experiments.outcome import Outcome, failed
from sandbox_sdk.experiments.plan import PlannedTrial
from sandbox_sdk.experiments.recorder import Recorder
from sandbox_sdk.experiments.result import ResourceUse
from sandbox_sdk.values import AttemptState, Workplace

log = logging.getLogger("sandbox_sdk.experiments")

_RECORD_SECONDS = 10.0  # for the last words of a cancelled attempt
_RETRY_SECONDS = (0.1, 1.0)
# Before the second and third attempt of what infrastructure failed: most such failures pass.


class Places(Protocol):
    """Gives each attempt its sandbox, its place on this machine and among its model's callers."""

    def place(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Wrap | None]:
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

    def place(self, trial: PlannedTrial) -> AbstractAsyncContextManager[Wrap | None]:
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
    """

    def __init__(self, run: OpenRun, models: ModelRegistry, places: Places) -> None:
        self._run = run
        self._models = models
        self._places = places

    async def run(self, trial: PlannedTrial) -> None:
        """Run a trial to its last state, again while infrastructure fails it, three times at most.

        Raises:
            StateError: Something cannot be recorded; nothing was sent after that.
            SandboxBusy: Another process has taken the run over.
        """
        async with self._places.place(trial) as wrap:
            while True:
                try:
                    outcome = await self.attempt(trial, wrap)
                except (StateError, SandboxBusy):
                    raise
                except SandboxError as error:
                    outcome = failed(AttemptState.INFRA_ERROR, error)  # recorded as this already
                except Exception as error:
                    # Our own mistake must not end the trials of all others.
                    log.exception("trial.failed", extra={"trial": trial.key})
                    outcome = failed(AttemptState.INFRA_ERROR, _as_sandbox_error(error))
                failures = self._run.ledger.unfinished(trial.index).failures
                if outcome.state is not AttemptState.INFRA_ERROR or failures >= MOST_INFRA_FAILURES:
                    return
                await anyio.sleep(_RETRY_SECONDS[failures - 1])

    async def attempt(self, trial: PlannedTrial, wrap: Wrap | None = None) -> Outcome:
        """Run one attempt of a trial. However it ends, its end is recorded, and durable on return.

        Raises:
            SandboxError: The sandbox made the attempt impossible.
            StateError: Something cannot be recorded.
        """
        number = self._run.ledger.row(trial.index).attempts + 1
        recorder = self._run.recorder(trial, number)
        ending = _Ending()
        try:
            ending.outcome = await self._attempt(trial, recorder, wrap, ending)
        except (StateError, SandboxBusy):
            ending.recordable = False
            raise
        except Exception as error:
            ending.outcome = failed(AttemptState.INFRA_ERROR, _as_sandbox_error(error))
            raise
        finally:
            if ending.recordable:
                # A cancelled attempt has its end recorded too, but may not take for ever.
                with anyio.CancelScope(shield=True), anyio.move_on_after(_RECORD_SECONDS):
                    await _record(ending, recorder)
        return ending.outcome

    async def _attempt(
        self, trial: PlannedTrial, recorder: Recorder, wrap: Wrap | None, ending: _Ending
    ) -> Outcome:
        around = Surroundings(
            folder=self._run.folder,
            models=self._models,
            lock=self._run.lock,
            condition=trial.condition.label,
            wrap=wrap,
            past=self._run.past(trial),
        )
        async with self._places.workplace(trial) as workplace:
            attempt = Attempt(trial.config, workplace, recorder, around)
            async with _metered(attempt, ending):
                return await attempt.run()


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
