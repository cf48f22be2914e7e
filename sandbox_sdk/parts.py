"""What a client's objects share while it is open: records, backend, models, background tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from sandbox_sdk.backends.local import LocalBackend
from sandbox_sdk.config import Settings
from sandbox_sdk.engine.supervisor import Supervisor
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.store.state import SQLiteStore

if TYPE_CHECKING:
    from sandbox_sdk.experiments.models.registry import ModelRegistry
    from sandbox_sdk.experiments.result import ExperimentResult
    from sandbox_sdk.values import Workplace


@attrs.define(eq=False)
class Parts:
    """The open parts of one client.

    Attributes:
        settings: What is set.
        folders: The state folder.
        store: Its records.
        supervisor: The one long-lived task.
        backend: Where sandboxes live.
    """

    settings: Settings
    folders: StateFolders
    store: SQLiteStore
    supervisor: Supervisor
    backend: LocalBackend
    _models: ModelRegistry | None = None

    @classmethod
    async def open(cls, settings: Settings) -> Parts:
        """Open the state folder, and clear up after owners that died.

        Raises:
            StateError: The state folder cannot be used.
        """
        folders = await anyio.to_thread.run_sync(StateFolders.open, settings.state_dir)
        store = await SQLiteStore.open(folders)
        supervisor = Supervisor()
        backend = LocalBackend(
            store,
            folders,
            supervisor,
            uid_range=(settings.uid_range.first, settings.uid_range.count),
        )
        parts = cls(settings, folders, store, supervisor, backend)
        try:
            await backend.reap()
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
        finally:
            await self.supervisor.aclose()
            await self.store.aclose()

    async def run_experiment(
        self, workplace: Workplace, config: Mapping[str, object]
    ) -> ExperimentResult:
        """Run an experiment in a sandbox."""
        raise RuntimeError("replaced below")

    async def export_results(self, sandbox_id: str, path: Path) -> list[Path]:
        """Export every run of a sandbox."""
        raise RuntimeError("replaced below")
