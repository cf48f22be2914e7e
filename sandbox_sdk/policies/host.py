"""What a host has left for sandboxes: the facts that admission and scaling decide by."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class HostState:
    """The memory and load of this machine at one moment, as far as sandboxes may use it.

    Attributes:
        memory_bytes: All there is; the smallest limit of a control group above the sandboxes.
        available_bytes: What could be had without taking it from anyone.
        memory_pressure: Percent of the last ten seconds in which something waited for memory;
            ``None`` where the kernel keeps no pressure.
        load: Processes that ran or waited to, on average of the last minute.
        processors: How many this process may use.
    """

    memory_bytes: int
    available_bytes: int
    memory_pressure: float | None = None
    load: float = 0.0
    processors: int = 1
