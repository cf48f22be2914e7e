"""What a client's objects share while it is open: records, backend, models, background tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from sandbox_sdk.audit import AuditLog, Auditor, Watcher
from sandbox_sdk.backends.audited import AuditedBackend
from sandbox_sdk.backends.local import LocalBackend
from sandbox_sdk.config import Settings
from sandbox_sdk.engine.admission import ReservedAdmission
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.errors import ExportError
from sandbox_sdk.model_host import SandboxModelHost
from sandbox_sdk.orchestrator import AsyncSDKOrchestrator
from sandbox_sdk.orchestrator.evidence import Witness
from sandbox_sdk.orchestrator.metrics import Meter
from sandbox_sdk.orchestrator.monitor import Monitor
from sandbox_sdk.orchestrator.optimize import Optimizer
from sandbox_sdk.orchestrator.scene import Scene
from sandbox_sdk.policies import Admission, FixedAdmission
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import new_id
from sandbox_sdk.vault import Vault

if TYPE_CHECKING:
    from sandbox_sdk.experiments.batches.batches import Batches
    from sandbox_sdk.experiments.batches.concurrency import Concurrency
    from sandbox_sdk.experiments.models.registry import ModelRegistry
    from sandbox_sdk.experiments.records.seals import Seals
    from sandbox_sdk.experiments.results.result import ExperimentResult
    from sandbox_sdk.values import Sandboxes, SandboxInfo, Workplace

_PLACES_PER_CORE = 4  # sandboxes of trials at once at first; most of a trial's time is waiting
_MOST_PER_CORE = 32  # the same at most, where memory and pressure allow


@attrs.define(eq=False)
class Parts:
    """The open parts of one client.

    Attributes:
        settings: What is set.
        folders: The state folder.
        store: Its records.
        supervisor: The one long-lived task.
        templates: The Python environments of sandboxes.
        vault: The keys.
        backend: Where sandboxes live.
        orchestrator: What looks after them.
        admission: Who may start a sandbox for a trial now.
        optimizer: The defaults that were chosen by what was seen.
        closed: Whether every sandbox was ended with the client.
    """

    settings: Settings
    folders: StateFolders
    store: SQLiteStore
    supervisor: Supervisor
    templates: Templates
    vault: Vault
    backend: LocalBackend | AuditedBackend
    orchestrator: AsyncSDKOrchestrator
    admission: Admission
    optimizer: Optimizer
    closed: bool = False
    _models: ModelRegistry | None = None
    _concurrency: Concurrency | None = None

    @classmethod
    async def open(cls, settings: Settings) -> Parts:
        """Open the state folder, and clear up after owners that died.

        Raises:
            StateError: The state folder cannot be used.
        """
        folders = await anyio.to_thread.run_sync(StateFolders.open, settings.state_dir)
        vault = Vault(folders.keys, lambda: settings.key_source)
        store = await SQLiteStore.open(folders, vault)
        supervisor = Supervisor()
        scale_log, witness = ScaleLog(), Witness()
        templates = Templates(folders.templates)
        backend = LocalBackend(
            store,
            folders,
            supervisor,
            templates,
            vault,
            uid_range=(settings.uid_range.first, settings.uid_range.count),
            pool_size=settings.pool_size,
            scaled=settings.auto_scaling,
            scale_log=scale_log,
        )
        auditor = _auditor(settings, store, folders, supervisor, vault)
        monitor = Monitor([backend], backend.read_host, interval=settings.monitoring_interval)
        monitor.tell(witness.seen)
        backend.observe(witness)
        admission = _admission(settings, backend, witness, scale_log)
        meter = Meter("local")
        backend.observe(meter)
        admission.waited = meter.waited
        optimizer = Optimizer(
            store, witness, memory_bytes=settings.resources.memory_bytes, places=admission.places
        )
        monitor.after_each_point(optimizer.save)
        orchestrator = AsyncSDKOrchestrator(
            monitor, scale_log, optimizer, Scene(backend, admission, meter)
        )
        parts = cls(
            settings,
            folders,
            store,
            supervisor,
            templates,
            vault,
            backend if auditor is None else AuditedBackend(backend, auditor),
            orchestrator,
            admission,
            optimizer,
        )
        try:
            await parts.backend.reap()
            await optimizer.load()
            await supervisor.start_soon(monitor.run)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await parts.aclose()
            raise
        return parts

    async def aclose(self) -> None:
        """Close everything, sandboxes first and records last. Idempotent."""
        try:
            if self._models is not None:
                await self._models.aclose()
            await self.backend.aclose()
            await self.optimizer.save()
        finally:
            self.closed = True
            self.templates.release()
            await self.supervisor.aclose()
            await self.store.aclose()

    def watcher(self, info: SandboxInfo) -> Watcher | None:
        """Return what records the calls inside a sandbox that was started, if they are."""
        return self.backend.watcher(info) if isinstance(self.backend, AuditedBackend) else None

    async def run_experiment(
        self, workplace: Workplace, config: Mapping[str, object]
    ) -> ExperimentResult:
        """Run an experiment in a sandbox, recorded as a run of it."""
        from sandbox_sdk.experiments.run import check_experiment, run_experiment

        models = self._model_registry()
        experiment = await check_experiment(config, models)
        run_id = new_id("run")
        await self.store.insert_run(run_id, workplace.id)
        return await run_experiment(
            experiment,
            workplace,
            runs_dir=self.folders.runs,
            models=models,
            run_id=run_id,
            owner=self.store.owner,
            seals=self._seals(),
        )

    async def export_results(self, sandbox_id: str, path: Path) -> list[Path]:
        """Export every run of a sandbox, oldest first."""
        from sandbox_sdk.experiments.records.journal import JOURNAL
        from sandbox_sdk.experiments.results.export import export_runs

        runs = map(self.folders.run, await self.store.list_runs(sandbox_id))
        # One whose process was killed before its first event has nothing to tell.
        made = [run for run in runs if await anyio.Path(run / JOURNAL).exists()]
        if not made:
            raise ExportError(
                f"sandbox {sandbox_id} has no results: call run_experiment() first",
                sandbox_id=sandbox_id,
                path=str(path),
            )
        level = (await self.backend.get(sandbox_id)).spec.security_level
        seals = self._seals()
        sign = await anyio.to_thread.run_sync(seals.signer, (level,))
        return await export_runs(made, path, sign=sign, seals=seals)

    def batches(self, sandboxes: Sandboxes) -> Batches:
        """Return what runs this client's batches, in sandboxes made by ``sandboxes``."""
        from sandbox_sdk.experiments.batches.batches import Batches
        from sandbox_sdk.experiments.batches.concurrency import Concurrency

        if self._concurrency is None:
            self._concurrency = Concurrency()
        return Batches(
            runs_dir=self.folders.runs,
            owner=self.store.owner,
            models=self._model_registry(),
            sandboxes=sandboxes,
            admission=self.admission,
            concurrency=self._concurrency,
            seals=self._seals(),
        )

    def _seals(self) -> Seals:
        """What seals and signs this client's runs."""
        from sandbox_sdk.experiments.records.seals import Seals

        return Seals(self.vault)

    def _model_registry(self) -> ModelRegistry:
        """The client's models, made on first use: their libraries are large."""
        from sandbox_sdk.experiments.models.registry import ModelRegistry

        if self._models is None:
            host = SandboxModelHost(self.backend, self.supervisor)
            self._models = ModelRegistry(host, models_dir=self.folders.models)
            for secret in self.settings.secrets:
                self._models.redactor.add(secret)
        return self._models


def _auditor(
    settings: Settings,
    store: SQLiteStore,
    folders: StateFolders,
    supervisor: Supervisor,
    vault: Vault,
) -> Auditor | None:
    """What records what is done: at every level, at the strict ones, or nothing."""
    if settings.enable_audit_logs is False:
        return None
    log = AuditLog(
        folders.root,
        vault,
        notes=store,
        background=supervisor,
        secrets=settings.secrets,
        keep_days=settings.audit_keep_days,
    )
    return Auditor(log, every_level=settings.enable_audit_logs is True)


def _admission(
    settings: Settings, backend: LocalBackend, witness: Witness, scale_log: ScaleLog
) -> FixedAdmission | ReservedAdmission:
    """Who may start a sandbox for a trial: by a fixed number, or by memory within one."""
    cores = os.cpu_count() or 1
    places = max(4, _PLACES_PER_CORE * cores)
    if not settings.auto_scaling:
        return FixedAdmission(settings.max_concurrency or places)
    return ReservedAdmission(
        backend.read_host,
        witness.peak_of,
        places=places,
        most=settings.max_concurrency or _MOST_PER_CORE * cores,
        scale_log=scale_log,
        reserve=settings.reserve,
    )
