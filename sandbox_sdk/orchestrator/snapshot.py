"""What was seen of all sandboxes of a client: at one moment, and over time."""

from __future__ import annotations

import attrs

from sandbox_sdk.policies.host import HostState
from sandbox_sdk.values import Usage


@attrs.frozen(kw_only=True)
class ResourceSnapshot:
    """What the sandboxes of this client used at one moment.

    Attributes:
        taken_at: Seconds since the epoch.
        sandboxes: One entry for each running sandbox, the SDK's own for local models included.
        host: What the machine had left; ``None`` where that could not be read.
    """

    taken_at: float
    sandboxes: tuple[Usage, ...] = ()
    host: HostState | None = None

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all sandboxes since they started; those without the figure left out."""
        return sum(usage.cpu_seconds or 0.0 for usage in self.sandboxes)

    @property
    def memory_bytes(self) -> int:
        """Memory of all sandboxes; those without the figure left out."""
        return sum(usage.memory_bytes or 0 for usage in self.sandboxes)

    @property
    def pids(self) -> int:
        """Processes and threads of all sandboxes; those without the figure left out."""
        return sum(usage.pids or 0 for usage in self.sandboxes)


@attrs.frozen(kw_only=True)
class HistoryPoint:
    """What all sandboxes of this client used in one ``monitoring_interval``.

    Attributes:
        taken_at: When it ended, in seconds since the epoch.
        running: Sandboxes that ran then.
        ended: Sandboxes that ended in it.
        cpu_seconds: CPU time used in it, also by those that ended: their totals are exact.
        memory_bytes: Memory at its end.
        pids: Processes and threads at its end.
        unmeasured: Sandboxes with a figure missing from these sums.
        available_bytes: Memory that the machine had left; ``None`` where it could not be read.
    """

    taken_at: float
    running: int
    ended: int
    cpu_seconds: float
    memory_bytes: int
    pids: int
    unmeasured: int = 0
    available_bytes: int | None = None
