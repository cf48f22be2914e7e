"""The orchestrator of a client: watches all its sandboxes, and tells how many there are and why."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from sandbox_sdk.engine.scale_log import Scaled, ScaleLog
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.orchestrator.monitor import Monitor
from sandbox_sdk.orchestrator.snapshot import HistoryPoint, ResourceSnapshot

__all__ = ["AsyncSDKOrchestrator", "HistoryPoint", "ResourceSnapshot", "Scaled"]


class AsyncSDKOrchestrator:
    """Looks after all sandboxes of one client."""

    def __init__(self, monitor: Monitor, scale_log: ScaleLog) -> None:
        self._monitor = monitor
        self._scale_log = scale_log

    async def monitor_resources(self) -> ResourceSnapshot:
        """Return what every running sandbox of this client uses now, read afresh.

        A figure that cannot be had is ``None`` in its entry, with the reason.
        """
        return await self._monitor.snapshot()

    async def watch(self, interval: float = 1.0) -> AsyncIterator[ResourceSnapshot]:
        """Yield what every running sandbox uses, again and again, until the caller stops.

        Args:
            interval: Seconds from one look to the next; a look that takes longer than that is
                followed by the next at once.

        Raises:
            ConfigError: The interval is not above 0.
        """
        if not interval > 0:
            raise ConfigError(f"interval: must be a number of seconds above 0, not {interval!r}")
        due = anyio.current_time()
        while True:
            yield await self._monitor.snapshot()
            due = max(due + interval, anyio.current_time())
            await anyio.sleep_until(due)

    async def history(self) -> list[HistoryPoint]:
        """Return one point for each ``monitoring_interval`` in which something ran, oldest first.

        A day's worth is kept, at one a minute, for as long as the client is open.
        """
        return list(self._monitor.history)

    async def decisions(self) -> list[Scaled]:
        """Return the latest changes of how many sandboxes stand ready or may run, oldest first.

        Each has what it was, what it became, and why; 1,000 are kept.
        """
        return list(self._scale_log.latest)
