# Generated from sandbox_sdk/orchestrator.py. Edit that, then run: nox -s generate -- --write
"""The orchestrator of a client: what all its sandboxes use now."""

from __future__ import annotations

from sandbox_sdk.orchestrator import AsyncSDKOrchestrator, ResourceSnapshot
from sandbox_sdk_sync._twin import Twin


class SDKOrchestrator(Twin[AsyncSDKOrchestrator]):
    """Looks after all sandboxes of one client."""

    def monitor_resources(self) -> ResourceSnapshot:
        """Return what every running sandbox of this client uses now, read afresh.

        A figure that cannot be had is ``None`` in its entry, with the reason.
        """
        return self._call(self._core.monitor_resources)
