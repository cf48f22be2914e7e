"""Gathers what stands where: the figures of metrics that nobody has to count."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from sandbox_sdk.backends.local import LocalBackend
from sandbox_sdk.orchestrator.metrics import Gauge, Meter, render
from sandbox_sdk.orchestrator.snapshot import ResourceSnapshot
from sandbox_sdk.policies import Admission


class Scene:
    """The parts of a client whose figures metrics tell.

    Args:
        backend: Where sandboxes live.
        admission: Who may start one.
        meter: What was counted.
    """

    def __init__(self, backend: LocalBackend, admission: Admission, meter: Meter) -> None:
        self._backend = backend
        self._admission = admission
        self._meter = meter

    def text(self, snapshot: ResourceSnapshot) -> str:
        """Return all figures in Prometheus's text format."""
        shelves = self._backend.shelves
        running, warm = len(snapshot.sandboxes), sum(shelf.ready for shelf in shelves)
        gauges = [
            Gauge("sandbox_sdk_sandboxes", running, ("running",)),
            Gauge("sandbox_sdk_sandboxes", warm, ("warm",)),
            Gauge("sandbox_sdk_places", self._admission.places),
            Gauge("sandbox_sdk_queue_depth", self._admission.waiting),
            Gauge("sandbox_sdk_cpu_seconds", snapshot.cpu_seconds),
            Gauge("sandbox_sdk_memory_bytes", snapshot.memory_bytes),
            Gauge("sandbox_sdk_pids", snapshot.pids),
        ]
        targets: dict[str, int] = {}
        misses: dict[str, int] = {}
        for shelf in shelves:  # shapes that differ in details share a name
            targets[shelf.name] = targets.get(shelf.name, 0) + shelf.target
            misses[shelf.name] = misses.get(shelf.name, 0) + shelf.misses
        for name in targets:
            gauges.append(Gauge("sandbox_sdk_pool_target", targets[name], (name,)))
            gauges.append(Gauge("sandbox_sdk_pool_misses_total", misses[name], (name,)))
        about = (_version(), platform.python_version(), self._meter.backend)
        gauges.append(Gauge("sandbox_sdk_build_info", 1, about))
        return render(self._meter, gauges)


def _version() -> str:
    try:
        return version("sandbox-sdk")
    except PackageNotFoundError:
        return "unknown"  # run from a source tree that was never installed
