"""What a client's objects share while it is open: records, backend, models, background tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from sandbox_sdk.audit import AuditLog, Auditor, Watcher
from sandbox_sdk.auth import AuthStatus, local_status
from sandbox_sdk.backends.audited import AuditedBackend
from sandbox_sdk.backends.base import Backend
from sandbox_sdk.backends.local import LocalBackend
from sandbox_sdk.config import Settings
from sandbox_sdk.engine.admission import ReservedAdmission
from sandbox_sdk.engine.reaper import remove_tree
from sandbox_sdk.engine.scale_log import ScaleLog
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.engine.templates import Templates
from sandbox_sdk.engine.worker import Worker
from sandbox_sdk.errors import ExportError
from sandbox_sdk.model_host import SandboxModelHost
from sandbox_sdk.orchestrator import AsyncSDKOrchestrator
from sandbox_sdk.orchestrator.enforce import Enforcer
from sandbox_sdk.orchestrator.evidence import Witness
from sandbox_sdk.orchestrator.metrics import Meter
from sandbox_sdk.orchestrator.monitor import Monitor
from sandbox_sdk.orchestrator.optimize import Optimizer
from sandbox_sdk.orchestrator.scene import Scene
from sandbox_sdk.policies import STRONG, Admission, FixedAdmission
from sandbox_sdk.rulebook import Rulebook
from sandbox_sdk.rules import Protection
from sandbox_sdk.spec import parse_spec
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore
from sandbox_sdk.values import SandboxSpec, new_id
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
        local: Sandboxes on this machine: the user's without an endpoint, and local models'.
        backend: Where the user's sandboxes live.
        orchestrator: What looks after them.
        admission: Who may start a sandbox for a trial now.
        optimizer: The defaults that were chosen by what was seen.
        enforcer: Holds all of it to the operator's rules.
        closed: Whether every sandbox was ended with the client.
    """

    settings: Settings
    folders: StateFolders
    store: SQLiteStore
    supervisor: Supervisor
    templates: Templates
    vault: Vault
    local: LocalBackend | AuditedBackend
    backend: Backend
    orchestrator: AsyncSDKOrchestrator
    admission: Admission
    optimizer: Optimizer
    enforcer: Enforcer
    closed: bool = False
    _models: ModelRegistry | None = None
    _concurrency: Concurrency | None = None

    @classmethod
    async def open(cls, settings: Settings, *, worker: Worker | None = None) -> Parts:
        """Open the state folder, and clear up after owners that died.

        Args:
            settings: What is set.
            worker: Seals the channels of sandboxes on this machine that have owners.

        Raises:
            StateError: The state folder cannot be used.
        """
        folders = await anyio.to_thread.run_sync(StateFolders.open, settings.state_dir)
        vault = Vault(folders.keys, lambda: settings.key_source)
        store = await SQLiteStore.open(folders, vault)
        supervisor = Supervisor()
        scale_log, witness = ScaleLog(), Witness()
        templates = Templates(folders.templates)
        auditor = _auditor(settings, store, folders, supervisor, vault)
        enforcer = _enforcer(settings, store, templates, auditor)
        here = LocalBackend(
            store,
            folders,
            supervisor,
            templates,
            vault,
            gate=enforcer,
            uid_range=(settings.uid_range.first, settings.uid_range.count),
            pool_size=settings.pool_size,
            scaled=settings.auto_scaling,
            scale_log=scale_log,
            worker=worker,
        )
        here.observe(enforcer)
        local = here if auditor is None else AuditedBackend(here, auditor)
        backend = _far(settings, folders, vault) or local
        monitor = Monitor([backend], here.read_host, interval=settings.monitoring_interval)
        monitor.tell(witness.seen)
        here.observe(witness)
        admission = _admission(settings, here, witness, scale_log)
        meter = Meter("local")
        here.observe(meter)
        enforcer.tell(meter.denied)
        admission.waited = meter.waited
        optimizer = Optimizer(
            store, witness, memory_bytes=settings.resources.memory_bytes, places=admission.places
        )
        monitor.after_each_point(optimizer.save)
        orchestrator = AsyncSDKOrchestrator(
            monitor,
            scale_log,
            optimizer,
            Scene(here, admission, meter),
            enforcer,
            partial(_spec_of, settings, templates),
            here,
        )
        parts = cls(
            settings,
            folders,
            store,
            supervisor,
            templates,
            vault,
            local,
            backend,
            orchestrator,
            admission,
            optimizer,
            enforcer,
        )
        try:
            await local.reap()
            await optimizer.load()
            await enforcer.refresh()
            await supervisor.start_soon(enforcer.run, here)
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
            await self.local.aclose()
            await self.optimizer.save()
            await self.enforcer.save()
        finally:
            self.closed = True
            self.templates.release()
            await self.supervisor.aclose()
            await self.store.aclose()

    def watcher(self, info: SandboxInfo) -> Watcher | None:
        """Return what records the calls inside a sandbox that was started, if they are."""
        return self.backend.watcher(info) if isinstance(self.backend, AuditedBackend) else None

    async def delete(self, id: str) -> None:
        """Delete a sandbox of the user's with its results.

        Raises:
            SandboxNotFound: There is none.
        """
        await self.backend.delete(id)
        if self.backend is not self.local:  # which knows nothing of results here
            for run in await self.store.list_runs(id):
                await anyio.to_thread.run_sync(self.vault.erase, run)
                await anyio.to_thread.run_sync(remove_tree, self.folders.run(run))
            await self.store.forget_far_runs(id)

    async def whoami(self) -> AuthStatus:
        """Return who the caller is.

        Raises:
            AuthenticationError: The server does not know the caller.
        """
        from sandbox_sdk.backends.http import HttpBackend

        if isinstance(self.backend, HttpBackend):
            return await self.backend.whoami()
        return local_status(self.settings)

    async def run_experiment(
        self, workplace: Workplace, config: Mapping[str, object]
    ) -> ExperimentResult:
        """Run an experiment in a sandbox, recorded as a run of it."""
        from sandbox_sdk.experiments.run import check_experiment, run_experiment

        models = self._model_registry()
        experiment = await check_experiment(config, models)
        run_id = new_id("run")
        if self.backend is self.local:
            await self.store.insert_run(run_id, workplace.id)
        else:
            await self.store.insert_far_run(run_id, workplace.id)
        return await run_experiment(
            experiment,
            workplace,
            runs_dir=self.folders.runs,
            models=models,
            run_id=run_id,
            owner=self.store.owner,
            purse=self.enforcer,
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
            purse=self.enforcer,
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
            host = SandboxModelHost(self.local, self.supervisor)
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


def _enforcer(
    settings: Settings, store: SQLiteStore, templates: Templates, auditor: Auditor | None
) -> Enforcer:
    """What holds all sandboxes to the rules of the settings and of the host.

    Raises:
        ConfigError: The rules cannot be read.
    """
    encrypted = settings.encryption_key is not None or settings.encryption_key_file is not None

    def protections(spec: SandboxSpec) -> list[Protection]:
        found: list[Protection] = []
        if encrypted or spec.security_level in STRONG:
            found.append("encryption")
        if auditor is not None and auditor.keeps(spec.security_level):
            found.append("audit")
        return found

    enforcer = Enforcer(
        Rulebook(settings.rules, config=settings.rules_file),
        store,
        client=f"uid {os.geteuid()}",
        known_by=templates.known_by,
        protections=protections,
    )
    if auditor is not None:
        enforcer.tell(auditor.denied)
    return enforcer


async def _spec_of(
    settings: Settings, templates: Templates, options: Mapping[str, Any]
) -> SandboxSpec:
    """Return the spec that options of ``create_sandbox`` mean."""
    parse = partial(parse_spec, **{"name": "sandbox", **options}, settings=settings)
    return await templates.pin(await anyio.to_thread.run_sync(parse))


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


def _far(settings: Settings, folders: StateFolders, vault: Vault) -> Backend | None:
    """Return the sandboxes of the server that is set; ``None`` is none."""
    if settings.endpoint is None:
        return None
    # Imported on use: HTTP costs more than the whole SDK without it.
    from sandbox_sdk.auth.client import Auth
    from sandbox_sdk.backends.http import Connection, HttpBackend, SealedHttpBackend
    from sandbox_sdk.crypto_utils.keys import VerifyKey

    auth = Auth.from_settings(settings)
    connection = Connection(settings.endpoint, auth, ca_file=settings.tls_ca_file)
    if not settings.seal_channels:
        return HttpBackend(connection)
    pinned = map(VerifyKey.parse, settings.worker_keys)
    return SealedHttpBackend(connection, folders, vault, pinned)
