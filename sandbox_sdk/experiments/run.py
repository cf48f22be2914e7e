"""Run one experiment in a sandbox: a run with one trial, on the path that a batch takes.

``attempt.started`` is durable before the sandbox is touched, ``model.requested`` before a call is
sent, ``model.responded`` before the answer is used, ``attempt.finished`` before it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread

from sandbox_sdk.experiments.batches.batch_config import BatchConfig
from sandbox_sdk.experiments.batches.plan import Plan, PlannedTrial, only_trial, ready_condition
from sandbox_sdk.experiments.batches.trial_runner import OneSandbox, TrialRunner
from sandbox_sdk.experiments.budgets.budget_limits import BudgetLimits
from sandbox_sdk.experiments.budgets.prices import Prices
from sandbox_sdk.experiments.budgets.spending import BudgetGate
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.run_record import read_run
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.result import STATUS, ExperimentResult
from sandbox_sdk.parse import Faults
from sandbox_sdk.policies import Purse
from sandbox_sdk.store.owner import Owner
from sandbox_sdk.values import Workplace, new_id


async def check_experiment(
    config: Mapping[str, object] | BatchConfig, models: ModelRegistry
) -> BatchConfig:
    """Return the experiment if it can be run, as far as is known without running it.

    Raises:
        ConfigError: The config is wrong; all faults at once.
        ModelError: There is no key, no such model, or nothing at its address.
    """
    if not isinstance(config, BatchConfig):
        config = await anyio.to_thread.run_sync(BatchConfig.read, config, "experiment")
    faults = Faults()
    if any(condition.sandbox for condition in config.conditions):
        faults.add(
            "experiment.sandbox",
            "is for client.run_batch(), which makes sandboxes; this one has its settings already",
        )
    if config.scorers:
        faults.add("experiment.scorers", "are for client.run_batch(), which may run one trial too")
    if config.budget != BudgetLimits():
        faults.add("experiment.budget", 'is for client.run_batch(); one trial has "limits"')
    faults.check()
    for condition in config.conditions:
        await models.check(condition.config)
    return config


async def run_experiment(
    config: Mapping[str, object] | BatchConfig,
    workplace: Workplace,
    *,
    runs_dir: Path,
    models: ModelRegistry,
    run_id: str | None = None,
    owner: Owner | None = None,
    purse: Purse | None = None,
    seals: Seals | None = None,
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
        owner: Who runs it; by default this process.
        purse: Says whether the model may be paid for.
        seals: Seals the run, if it is to be; by default none is.

    Raises:
        ConfigError: The config is wrong, or makes more than one trial.
        ModelAuthError: There is no key, or it was refused.
        ModelNotFound: The model is unknown, retired or not installed.
        ModelUnavailable: Nothing listens at the model's address.
        UnsupportedParameter: The model refuses a parameter.
        SandboxError: The sandbox could not be set up.
        StateError: The run could not be recorded; nothing was sent after that.
    """
    batch = await check_experiment(config, models)
    for condition in batch.conditions:
        for secret in condition.config.secrets:
            models.redactor.add(secret)
    ready = [ready_condition(batch, each, workplace.info.spec, models) for each in batch.conditions]
    if owner is None:
        owner = await anyio.to_thread.run_sync(Owner.current)
    plan = Plan(batch, ready, derive_seeds=False)
    trial = only_trial(plan)
    run_id, seals = run_id or new_id("run"), seals or Seals()
    levels = {workplace.info.spec.security_level}
    run = await OpenRun.create(
        runs_dir,
        run_id,
        plan,
        models.redactor,
        owner,
        sandbox_id=workplace.id,
        payloads=await anyio.to_thread.run_sync(seals.for_new, run_id, levels),
    )
    try:
        gate = None
        if purse is not None:
            about = {trial.condition.label: workplace.info.spec.metadata}
            gate = BudgetGate.unbounded(Prices(trial.config.prices), purse, about)
        await _run(run, trial, TrialRunner(run, models, OneSandbox(workplace), gate=gate))
    finally:
        await run.aclose()
    record = await anyio.to_thread.run_sync(read_run, run.folder, seals)
    result = await anyio.to_thread.run_sync(record.result_of, trial.index)
    if result is None:
        raise AssertionError("unreachable: the attempt started and ended")
    return result


async def _run(run: OpenRun, trial: PlannedTrial, runner: TrialRunner) -> None:
    """Run the only attempt, and note the run's end if it could be recorded so far.

    Raises:
        SandboxError: The config or the sandbox made the attempt impossible.
        StateError: Its end could not be recorded.
    """
    try:
        outcome = await runner.attempt(trial)
    finally:
        state = run.ledger.row(trial.index).state
        if state is not None and run.journal.failure is None:
            with anyio.CancelScope(shield=True):
                await run.note("run.finished", status=STATUS[state])
    if outcome.raises is not None:
        raise outcome.raises
