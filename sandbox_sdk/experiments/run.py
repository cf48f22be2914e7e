"""Run one experiment in a sandbox: the order of its steps, and of what is durable when.

``attempt.started`` is durable before the sandbox is touched, ``model.requested`` before a call is
sent, ``model.responded`` before the answer is used, ``attempt.finished`` before it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import SandboxError, StateError
from sandbox_sdk.experiments.attempt import Attempt
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.derive import derive_result
from sandbox_sdk.experiments.journal import JOURNAL, Journal
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.outcome import Outcome, failed
from sandbox_sdk.experiments.recorder import Recorder
from sandbox_sdk.experiments.result import STATUS, ExperimentResult
from sandbox_sdk.experiments.run_folder import create_run
from sandbox_sdk.values import AttemptState, Workplace, new_id

_RECORD_SECONDS = 10.0  # for the last words of a cancelled attempt


async def check_experiment(
    config: Mapping[str, object] | ExperimentConfig, models: ModelRegistry
) -> ExperimentConfig:
    """Return the experiment if it can be run, as far as is known without running it.

    Raises:
        ConfigError: The config is wrong; all faults at once.
        ModelError: There is no key, no such model, or nothing at its address.
    """
    if not isinstance(config, ExperimentConfig):
        config = ExperimentConfig.read(config)
    await models.check(config)
    return config


async def run_experiment(
    config: Mapping[str, object] | ExperimentConfig,
    workplace: Workplace,
    *,
    runs_dir: Path,
    models: ModelRegistry,
    run_id: str | None = None,
) -> ExperimentResult:
    """Run one experiment and return what it gave.

    What the config makes impossible is raised, before anything is made where that can be known.
    What happens to a run that was possible is in the result: limits, failed calls, dead sandboxes.

    Args:
        config: The experiment.
        workplace: The sandbox; set up if need be.
        runs_dir: Where the run's folder is made.
        models: The client's models.
        run_id: The run's id, of ``new_id("run")``; by default a new one.

    Raises:
        ConfigError: The config is wrong.
        ModelAuthError: There is no key, or it was refused.
        ModelNotFound: The model is unknown, retired or not installed.
        ModelUnavailable: Nothing listens at the model's address.
        UnsupportedParameter: The model refuses a parameter.
        SandboxError: The sandbox could not be set up.
        StateError: The run could not be recorded; nothing was sent after that.
    """
    experiment = await check_experiment(config, models)
    for secret in experiment.secrets:
        models.redactor.add(secret)
    run = run_id or new_id("run")
    folder, plan = await create_run(runs_dir, run, experiment, workplace.id, models.redactor)
    journal = await Journal.create(folder / JOURNAL, run, models.redactor)
    try:
        recorder = Recorder(journal, plan["trial"], attempt=1)
        attempt = Attempt(experiment, workplace, folder, recorder, models)
        await _recorded(attempt, recorder)
    finally:
        await journal.aclose()
    result = await anyio.to_thread.run_sync(derive_result, plan, journal.events)
    if result is None:
        raise AssertionError("unreachable: the attempt started and ended")
    return result


async def _recorded(attempt: Attempt, recorder: Recorder) -> None:
    """Run the attempt. However it ends, its end is recorded, and durable on return.

    Raises:
        SandboxError: The config or the sandbox made the attempt impossible.
        StateError: Its end could not be recorded.
    """
    outcome = Outcome(state=AttemptState.CANCELLED)
    recordable = True
    try:
        outcome = await attempt.run()
    except StateError:
        recordable = False
        raise
    except Exception as error:
        outcome = failed(AttemptState.INFRA_ERROR, _as_sandbox_error(error))
        raise
    finally:
        if recordable:
            # A cancelled attempt has its end recorded too, but may not hold the caller for ever.
            with anyio.CancelScope(shield=True), anyio.move_on_after(_RECORD_SECONDS):
                await _finish(outcome, attempt, recorder)
    if outcome.raises is not None:
        raise outcome.raises


async def _finish(outcome: Outcome, attempt: Attempt, recorder: Recorder) -> None:
    usage = await attempt.usage()
    recorder.note(
        "attempt.finished",
        state=outcome.state,
        limit=attrs.asdict(outcome.limit) if outcome.limit else None,
        error=attrs.asdict(outcome.error) if outcome.error else None,
        resource_usage=attrs.asdict(usage) if usage else None,
    )
    await recorder.durable("run.finished", status=STATUS[outcome.state])


def _as_sandbox_error(error: Exception) -> SandboxError:
    if isinstance(error, SandboxError):
        return error
    return SandboxError(f"an error of the SDK itself, {type(error).__name__}: {error}")
