"""Drives the trials of a batch: how many at once, what ends it early, and what it gave."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread

from sandbox_sdk.errors import SandboxBusy, SandboxError, StateError
from sandbox_sdk.experiments.batches.plan import PlannedTrial
from sandbox_sdk.experiments.batches.progress import Progress, progress_of
from sandbox_sdk.experiments.batches.reuse import Source
from sandbox_sdk.experiments.batches.scoring import Scoring
from sandbox_sdk.experiments.batches.trial_runner import TrialRunner
from sandbox_sdk.experiments.budgets.spending import BudgetGate
from sandbox_sdk.experiments.records.ledger import OPEN_STATES
from sandbox_sdk.experiments.records.open_run import OpenRun
from sandbox_sdk.experiments.records.run_folder import read_plan
from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.run_result import RunResult, RunStatus, Trial, trial_at
from sandbox_sdk.experiments.results.tables import write_tables
from sandbox_sdk.values import AttemptState

log = logging.getLogger("sandbox_sdk.experiments")

MOST_WORKERS = 100
"""Trials under way at once where nothing else bounds them."""

_ACTS_FROM = 20  # ended trials; a share of fewer says little
_FAILED = frozenset({AttemptState.MODEL_ERROR, AttemptState.INFRA_ERROR})


class BatchRun:
    """A batch while it runs.

    Args:
        run: The run.
        record: The run as results are read from it.
        runner: Runs one trial.
        gate: The budget.
        scoring: Lets scorers judge trials that are taken from another run.
        source: The run that trials are taken from.
        notices: What a reader of the result should know.
        retry_failed: Whether trials that a model's provider or infrastructure failed are taken up.
    """

    def __init__(
        self,
        run: OpenRun,
        record: RunRecord,
        runner: TrialRunner,
        gate: BudgetGate,
        *,
        scoring: Scoring,
        source: Source | None = None,
        notices: tuple[str, ...] = (),
        retry_failed: bool = False,
    ) -> None:
        self.run = run
        self.gate = gate
        self._record = record
        self._runner = runner
        self._scoring = scoring
        self._source = source
        self._notices = list(notices)
        self._todo = self._open_trials(retry_failed=retry_failed)
        self._in_flight: set[int] = set()
        self._unrecorded: tuple[int, ...] = ()
        self._failure: StateError | SandboxBusy | None = None
        self._error: SandboxError | None = None
        self._over_budget: str | None = None
        self._over = False
        self._cancelled = False
        self._may_start = anyio.Event()
        self._may_start.set()
        self._scope = anyio.CancelScope()
        self._endings: list[int] = []
        self._ending = anyio.Event()  # set at the next ending, or when there will be none
        self._done = False

    async def drive(self) -> None:
        """Run the trials that are open until none is left, or something ends the run early.

        Raises:
            AdmissionTimeout: Other runs held all places for sandboxes for too long.
        """
        workers = self.run.plan.batch.max_concurrency or MOST_WORKERS
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    for _ in range(min(workers, len(self.run.plan))):
                        group.start_soon(self._work)
        finally:
            self._done = True
            self._ending.set()
            with anyio.CancelScope(shield=True):
                await self._conclude()
        if self._error is not None:
            raise self._error

    def pause(self) -> None:
        """Start no trial until ``resume()``; those under way go on."""
        if self._may_start.is_set():
            self._may_start = anyio.Event()

    def resume(self) -> None:
        """Start trials again."""
        self._may_start.set()

    def cancel(self) -> None:
        """End the trials under way as cancelled, and start none."""
        self._cancelled = self._over = True
        self._scope.cancel()
        self.resume()

    def cancel_rest(self) -> None:
        """Start no more trials; those under way come to their end."""
        self._stop("the rest was cancelled; call again to go on with it")

    async def endings(self) -> AsyncIterator[Trial]:
        """Yield the trials in the order in which they come to their last state."""
        at = 0
        while True:
            for index in self._endings[at:]:
                at += 1
                yield trial_at(self._record, index)
            if self._done and at == len(self._endings):
                return
            if at == len(self._endings):
                await self._ending.wait()

    def progress(self) -> Progress:
        """Return how far it has come."""
        return progress_of(self._record, self.run.kept, len(self._in_flight), self.gate.budget)

    def result(self) -> RunResult:
        """Return what it gave so far; call it after ``drive()``."""
        keys = self.run.plan.keys
        return result_of(
            self._record,
            status="degraded" if self._failure else None,
            kept=self.run.kept,
            notices=tuple(
                dict.fromkeys((*self._notices, *self._budget_notices(), *drift_notices(self.run)))
            ),
            unrecorded=tuple(keys[index] for index in self._unrecorded),
        )

    def _budget_notices(self) -> list[str]:
        refused = self.run.ledger.states[AttemptState.BUDGET]
        if not refused or self._over_budget is None:
            return []
        return [f"the budget had no room for {refused:,} trials; the first: {self._over_budget}"]

    def _open_trials(self, *, retry_failed: bool) -> Iterator[int]:
        ledger = self.run.ledger
        for index in range(len(self.run.plan)):
            state = ledger.row(index).state
            if state is None or state in OPEN_STATES or (retry_failed and state in _FAILED):
                if state in _FAILED:
                    ledger.unfinished(index).failures = 0
                yield index

    async def _work(self) -> None:
        while not self._over:
            await self._may_start.wait()
            if self._over or (index := next(self._todo, None)) is None:
                return
            self._in_flight.add(index)
            try:
                await self._run(self.run.plan.trial(index))
            except (StateError, SandboxBusy) as error:
                self._degrade(error)
                return
            except SandboxError as error:
                self._error = self._error or error
                self._scope.cancel()
                return
            self._in_flight.discard(index)
            self._endings.append(index)
            event, self._ending = self._ending, anyio.Event()
            event.set()
            self._stop_if_broken()

    async def _run(self, trial: PlannedTrial) -> None:
        if self._source is not None and trial.key in self._source:
            await self._source.take(trial, self.run, self._scoring)
        else:
            outcome = await self._runner.run(trial)
            if outcome.state is AttemptState.BUDGET and outcome.error is not None:
                self._over_budget = self._over_budget or outcome.error.message

    def _degrade(self, error: StateError | SandboxBusy) -> None:
        """End everything: what goes on from here could not be recorded."""
        if self._failure is None:
            self._failure = error
            self._unrecorded = tuple(sorted(self._in_flight))
            self._stop(f"something could not be recorded: {error.message}")
            log.error("run.degraded", extra={"run": self.run.id, "reason": error.message})
            self._scope.cancel()

    def _stop(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._notices.append(reason)
        self.resume()

    def _stop_if_broken(self) -> None:
        ledger, share = self.run.ledger, self.run.plan.batch.fail_on_error
        failed = sum(ledger.states[state] for state in _FAILED)
        if share is not None and ledger.done >= _ACTS_FROM and failed > share * ledger.done:
            self._stop(
                f"{failed:,} of {ledger.done:,} trials failed for their model or infrastructure, "
                f"more than fail_on_error of {share:g} allows, so no more were started"
            )

    async def _conclude(self) -> None:
        """Write the tables and note the end, as far as anything can be recorded.

        In this order: a run whose end is noted has its tables, whenever its process was killed.
        A sealed run has none: its export makes them.
        """
        try:
            if self._failure is None:
                ledger = self.run.ledger
                if self.run.payloads.key_id is None:
                    await anyio.to_thread.run_sync(self._write_tables)
                await self.run.note(
                    "run.finished",
                    status="complete" if ledger.done == len(self.run.plan) else "partial",
                    reasons=list(self._notices),
                )
        except (StateError, SandboxBusy) as error:
            self._degrade(error)
        finally:
            await self.run.aclose()

    def _write_tables(self) -> None:
        with self.run.held():
            write_tables(self._record)


async def record_of(run: OpenRun, seals: Seals) -> RunRecord:
    """Return an open run as results are read from it; its ledger is the run's own.

    Args:
        run: The run.
        seals: Seals and signs runs.

    Raises:
        StateError: The plan cannot be read.
    """
    plan = await anyio.to_thread.run_sync(read_plan, run.folder, run.payloads)
    return RunRecord(
        folder=run.folder,
        id=run.id,
        sandbox_id="",
        created_at=run.created_at,
        live=True,
        plan=plan,
        keys=run.plan.keys,
        samples=[sample.id for sample in run.plan.batch.dataset.samples],
        ledger=run.ledger,
        payloads=run.payloads,
        seals=seals,
    )


def result_of(
    record: RunRecord,
    *,
    status: RunStatus | None = None,
    kept: int = 0,
    notices: tuple[str, ...] = (),
    unrecorded: tuple[str, ...] = (),
) -> RunResult:
    """Return what a run gave, as far as its journal tells."""
    ledger = record.ledger
    if status is None:
        status = "complete" if ledger.done == len(record.keys) else "partial"
    billed = tuple(ledger.possibly_billed)
    if billed:
        said = "calls were sent and their answer never recorded; they may have been billed"
        notices = (*notices, f"{len(billed):,} {said} (possibly_billed)")
    if ledger.diverged:
        said = "attempts went another way than the one whose answers were replayed"
        notices = (*notices, f"{ledger.diverged:,} {said}")
    return RunResult(
        id=record.id,
        name=record.plan["config"].get("name"),
        folder=record.folder,
        status=status,
        planned=len(record.keys),
        kept=kept,
        notices=notices,
        unrecorded=unrecorded,
        possibly_billed=billed,
        record=record,
    )


def drift_notices(run: OpenRun) -> list[str]:
    """Return what has changed on this machine since the run began."""
    names = list(run.lock.drift)
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"this machine has changed since the run began: {shown} (lock.json has all)"]
