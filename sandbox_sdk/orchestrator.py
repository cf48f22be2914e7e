"""The orchestrator of a client: what all its sandboxes use now."""

from __future__ import annotations

import time

import attrs

from sandbox_sdk.backends.base import Backend
from sandbox_sdk.values import SandboxState, Usage


@attrs.frozen(kw_only=True)
class ResourceSnapshot:
    """What the sandboxes of this client used at one moment.

    Attributes:
        taken_at: Seconds since the epoch.
        sandboxes: One entry for each running sandbox, the SDK's own for local models included.
        cpu_seconds: Sum of the figures that could be had.
        memory_bytes: Sum of the figures that could be had.
        pids: Sum of the figures that could be had.
    """

    taken_at: float
    sandboxes: tuple[Usage, ...] = ()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all sandboxes since they started."""
        return sum(usage.cpu_seconds or 0.0 for usage in self.sandboxes)

    @property
    def memory_bytes(self) -> int:
        """Memory of all sandboxes."""
        return sum(usage.memory_bytes or 0 for usage in self.sandboxes)

    @property
    def pids(self) -> int:
        """Processes and threads of all sandboxes."""
        return sum(usage.pids or 0 for usage in self.sandboxes)


class AsyncSDKOrchestrator:
    """Looks after all sandboxes of one client."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def monitor_resources(self) -> ResourceSnapshot:
        """Return what every running sandbox of this client uses now, read afresh.

        A figure that cannot be had is ``None`` in its entry, with the reason.
        """
        infos = await self._backend.list(include_internal=True)
        running = [info.id for info in infos if info.state is SandboxState.RUNNING]
        return ResourceSnapshot(taken_at=time.time(), sandboxes=await self._backend.usage(running))
