"""Batches from config to run: planned, found again if they were begun, opened and driven."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import SandboxBusy
from sandbox_sdk.experiments.batches.batch_config import BatchConfig
from sandbox_sdk.experiments.batches.batch_run import BatchRun, record_of, result_of
from sandbox_sdk.experiments.batches.choice import NEW, Choice
from sandbox_sdk.experiments.batches.concurrency import Concurrency
from sandbox_sdk.experiments.batches.graders import Grading, check_graders
from sandbox_sdk.experiments.batches.places import FreshPlaces
from sandbox_sdk.experiments.batches.plan import Plan, make_ready
from sandbox_sdk.experiments.batches.preview import BatchPreview, preview
from sandbox_sdk.experiments.batches.reuse import Source
from sandbox_sdk.experiments.batches.scoring import Scoring
from sandbox_sdk.experiments.batches.trial_runner import TrialRunner
from sandbox_sdk.experiments.budgets.budget import Budget
from sandbox_sdk.experiments.budgets.budget_check import BudgetedModel, check_budget
from sandbox_sdk.experiments.budgets.budget_facts import budget_facts
from sandbox_sdk.experiments.budgets.prices import Prices
from sandbox_sdk.experiments.budgets.spending import BudgetGate
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.run_folder import (
    find_run,
    find_runs,
    key_id,
    lock_plan,
    read_plan,
    runs_of_plan,
)
from sandbox_sdk.experiments.records.run_info import RunInfo, run_info
from sandbox_sdk.experiments.records.run_record import RunRecord, read_run
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.run_result import RunResult
from sandbox_sdk.parse import fault
from sandbox_sdk.policies import Admission, Purse
from sandbox_sdk.store.owner import Owner
from sandbox_sdk.values import AttemptState, Sandboxes, new_id

_RETRIED = frozenset({AttemptState.MODEL_ERROR, AttemptState.INFRA_ERROR})


@attrs.frozen(kw_only=True, eq=False)
class Opened:
    """A batch that was opened.

    Attributes:
        run: The run, to be driven.
        result: What it gave, if it was finished before.
    """

    run: BatchRun | None = None
    result: RunResult | None = None


@attrs.frozen(kw_only=True, eq=False)
class Batches:
    """Runs the batches of one client.

    Attributes:
        runs_dir: Where runs are kept.
        owner: Who drives them.
        models: The client's models.
        sandboxes: Makes sandboxes.
        admission: Says when one may start.
        concurrency: The places among the models' callers.
        purse: Says whether models may be paid for.
        seals: Seals and signs runs.
    """

    runs_dir: Path
    owner: Owner
    models: ModelRegistry
    sandboxes: Sandboxes
    admission: Admission
    concurrency: Concurrency
    purse: Purse | None = None
    seals: Seals = attrs.field(factory=Seals)

    async def plan(self, config: Mapping[str, object], choice: Choice) -> Plan:
        """Return the plan of a batch, checked as far as can be without running anything.

        Raises:
            ConfigError: The config is wrong; all faults at once.
            ModelError: A model cannot be called.
            TemplateError: There is no such template.
        """
        batch = await anyio.to_thread.run_sync(BatchConfig.read, config)
        if choice.limit is not None or choice.samples:
            if not batch.has_dataset:
                raise fault("limit", 'needs a "dataset" to choose from')
            cut = batch.dataset.take(limit=choice.limit, ids=choice.samples)
            batch = attrs.evolve(batch, dataset=cut)
        for condition in batch.conditions:
            for secret in condition.config.secrets:
                self.models.redactor.add(secret)
        ready = await make_ready(batch, self.models, self.sandboxes)
        asked = [
            ("batch", each.config) for each in batch.conditions if each.config.model is not None
        ]
        asked += await check_graders(batch, self.models)
        entries = [
            BudgetedModel(path=path, config=config, model=self.models.priced(config))
            for path, config in asked
        ]
        check_budget(batch.budget, entries, _prices(batch))
        return await anyio.to_thread.run_sync(Plan, batch, ready)

    async def open(self, plan: Plan, choice: Choice) -> Opened:
        """Return the run of a plan, ready to be driven, or what it gave if it is finished.

        Raises:
            SandboxNotFound: There is no run of the id that was chosen.
            ConfigError: The run that was chosen is of another plan.
            SandboxBusy: Another live process drives it.
            KeyNotFound: It is sealed, or may be, and its key is not here.
            IntegrityError: It is sealed, and something of it was changed.
            StateError: It cannot be read or written.
        """
        marks = await anyio.to_thread.run_sync(self._marks, plan, choice)
        # Two calls with the same plan at the same time must not both find no run and begin one.
        lock = await anyio.to_thread.run_sync(lock_plan, self.runs_dir, marks[-1])
        try:
            found = await anyio.to_thread.run_sync(self._find, plan, choice, marks)
            if found is not None and self._is_finished(found, choice):
                said = f'this is the run {found.id}, which is finished; run="new" starts another'
                return Opened(result=result_of(found, kept=found.ledger.done, notices=(said,)))
            if found is None:
                run = await self._create(plan, marks[-1])
            else:
                redactor, owner = self.models.redactor, self.owner
                run = await OpenRun.resume(found.folder, found.payloads, plan, redactor, owner)
        finally:
            os.close(lock)
        gate = BudgetGate(Budget(plan.batch.budget, _prices(plan.batch)), self.purse, plan.metadata)
        try:
            if found is not None:
                await anyio.to_thread.run_sync(_restore, gate.budget, run)
            return Opened(run=await self._batch_run(run, gate, choice, resumed=found is not None))
        except BaseException:
            await run.aclose()
            raise

    async def _create(self, plan: Plan, mark: str) -> OpenRun:
        run, seals = new_id("run"), self.seals
        return await OpenRun.create(
            self.runs_dir,
            run,
            plan,
            self.models.redactor,
            self.owner,
            payloads=await anyio.to_thread.run_sync(seals.for_new, run, _levels(plan)),
            mark=mark,
        )

    async def _batch_run(
        self, run: OpenRun, gate: BudgetGate, choice: Choice, *, resumed: bool
    ) -> BatchRun:
        batch, sandboxes = run.plan.batch, self.sandboxes.of_run(run.id)
        if resumed:
            await sandboxes.clear()
        places = FreshPlaces(
            run.id,
            models=self.models,
            sandboxes=sandboxes,
            admission=self.admission,
            concurrency=self.concurrency,
            admission_timeout=batch.admission_timeout,
            scored_inside=any(scorer.needs_sandbox for scorer in batch.scorers),
        )
        grading = Grading(run, self.models, self.concurrency, gate)
        scoring = Scoring(run, batch.scorers, grading=grading, sandboxes=sandboxes)
        notices: tuple[str, ...] = ()
        if resumed:
            left = len(run.plan) - run.kept
            notices = (f"continued {run.id}: {run.kept:,} trials kept, {left:,} to do",)
        return BatchRun(
            run,
            await record_of(run, self.seals),
            TrialRunner(run, self.models, places, gate=gate, scoring=scoring),
            gate,
            notices=notices,
            scoring=scoring,
            source=await anyio.to_thread.run_sync(self._source, run.plan, choice),
            retry_failed=choice.retry_failed,
        )

    async def preview(self, plan: Plan, choice: Choice) -> BatchPreview:
        """Return what ``open()`` and ``drive()`` would do.

        Raises:
            SandboxError: As ``open()`` says.
        """
        return await anyio.to_thread.run_sync(self._preview, plan, choice)

    def _preview(self, plan: Plan, choice: Choice) -> BatchPreview:
        found = self._find(plan, choice, self._marks(plan, choice))
        source = self._source(plan, choice)
        prices = _prices(plan.batch)
        return preview(plan, found, source, self.models, prices, retry_failed=choice.retry_failed)

    def get(self, run: str) -> RunResult:
        """Return what a run gave so far. Reads the disk.

        Raises:
            SandboxNotFound: There is none of this id.
            KeyNotFound: It is sealed, and its key is not here.
            IntegrityError: It is sealed, and something of it was changed.
            StateError: Its folder is damaged.
        """
        return result_of(read_run(find_run(self.runs_dir, run), self.seals))

    def every(self) -> list[RunInfo]:
        """Return all runs, oldest first. Reads the disk."""
        return [run_info(folder) for folder in find_runs(self.runs_dir)]

    def _source(self, plan: Plan, choice: Choice) -> Source | None:
        if choice.reuse is None:
            return None
        return Source(read_run(find_run(self.runs_dir, choice.reuse), self.seals), plan.keys)

    def _marks(self, plan: Plan, choice: Choice) -> tuple[str, ...]:
        """Return what the plan's runs may be found by, that of a new one last. Reads the disk."""
        if choice.run not in (None, NEW):
            # Refused here if its key is missing, for a mark in clear would tell the plan's digest.
            self.seals.of(choice.run, key_id(find_run(self.runs_dir, choice.run)))
        return self.seals.marks(plan.digest, _levels(plan), every=choice.run is None)

    def _find(self, plan: Plan, choice: Choice, marks: tuple[str, ...]) -> RunRecord | None:
        """Return the run to go on with, if there is one. Reads the disk."""
        if choice.run == NEW:
            return None
        if choice.run is not None:
            folder = find_run(self.runs_dir, choice.run)
            payloads = self.seals.of(folder.name, key_id(folder))
            if (told := read_plan(folder, payloads))["digest"] != plan.digest:
                raise fault("run", f"{choice.run} is of another plan: {_difference(told, plan)}")
        elif folders := runs_of_plan(self.runs_dir, marks):
            folder = folders[-1]
        else:
            return None
        record = read_run(folder, self.seals)
        if record.live:
            raise SandboxBusy(
                f"the run {record.id} of this plan is being driven by another process or call; "
                'wait for its end, or start another with run="new"'
            )
        return record

    def _is_finished(self, record: RunRecord, choice: Choice) -> bool:
        ledger = record.ledger
        failed = choice.retry_failed and any(
            row is not None and row.done and row.state in _RETRIED for row in ledger.rows
        )
        # One that was killed after its last trial has no tables yet: going on with it makes them.
        return ledger.finished and ledger.done == len(record.keys) and not failed


def _levels(plan: Plan) -> set[str]:
    """Return the security levels of a plan's sandboxes."""
    return {ready.spec.security_level for ready in plan.ready}


def _prices(batch: BatchConfig) -> Prices:
    """Return the prices of all conditions; those of the last one count where two differ."""
    table: dict[str, Any] = {}
    for condition in batch.conditions:
        table |= condition.config.prices
    return Prices(table)


def _restore(budget: Budget, run: OpenRun) -> None:
    """Let a budget know what was spent on a run before. Reads the disk."""
    labels = [ready.condition.label for ready in run.plan.ready]
    conditions = {key: labels[index % len(labels)] for index, key in enumerate(run.plan.keys)}
    budget.restore(budget_facts(run.events(), conditions))


def _difference(told: Mapping[str, Any], plan: Plan) -> str:
    """Return in what a run's plan differs from another, as far as it is told."""
    dataset = told["dataset"] and told["dataset"]["digest"]
    differs = {
        "name": told["config"].get("name") != plan.batch.name,
        "conditions": [each["config_digest"] for each in told["conditions"]]
        != [ready.condition.config.digest for ready in plan.ready],
        "dataset": plan.batch.has_dataset and dataset != plan.batch.dataset.digest,
        "repeats": told["repeats"] != plan.batch.repeats,
        "scorers": [each["digest"] for each in told["config"].get("scorers", ())]
        != [scorer.digest for scorer in plan.batch.scorers],
    }
    found = [name for name, differ in differs.items() if differ] or ["settings of its sandboxes"]
    return f"it differs in {', '.join(found)}"
