"""Counts starts, ends and waits, and tells all figures in Prometheus's text format.

Source: the text format, version 0.0.4, of the Prometheus documentation ("Exposition formats").
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import attrs

from sandbox_sdk.errors import PolicyDenied
from sandbox_sdk.values import Ended, EndKind, SandboxInfo, SandboxSpec, Usage

BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Upper bounds of the histograms, in seconds."""

Labels = tuple[tuple[str, str], ...]


@attrs.frozen
class Metric:
    """One metric.

    Attributes:
        kind: What it is to Prometheus.
        labels: Their names.
        help: What it tells.
    """

    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS: Mapping[str, Metric] = {
    "sandbox_sdk_sandboxes": Metric("gauge", ("state",), "Sandboxes, running or ready (warm)."),
    "sandbox_sdk_sandbox_start_seconds": Metric(
        "histogram", ("start", "backend"), "Time from the wish to a set-up sandbox."
    ),
    "sandbox_sdk_sandbox_start_failures_total": Metric("counter", (), "Starts that failed."),
    "sandbox_sdk_sandbox_exits_total": Metric("counter", ("reason",), "Sandboxes that ended."),
    "sandbox_sdk_pool_target": Metric("gauge", ("profile",), "Sandboxes to be kept ready."),
    "sandbox_sdk_pool_misses_total": Metric(
        "counter", ("profile",), "Requests that found none ready."
    ),
    "sandbox_sdk_places": Metric("gauge", (), "Trials that may run at once."),
    "sandbox_sdk_queue_depth": Metric("gauge", (), "Trials that wait for a place."),
    "sandbox_sdk_queue_wait_seconds": Metric("histogram", (), "Time waited for a place."),
    "sandbox_sdk_cpu_seconds": Metric("gauge", (), "CPU time of all running sandboxes."),
    "sandbox_sdk_memory_bytes": Metric("gauge", (), "Memory of all running sandboxes."),
    "sandbox_sdk_pids": Metric("gauge", (), "Processes and threads of all running sandboxes."),
    "sandbox_sdk_policy_denials_total": Metric(
        "counter", ("rule",), "What a rule of policies did not allow."
    ),
    "sandbox_sdk_build_info": Metric("gauge", ("version", "python", "backend"), "Always 1."),
}
"""Name -> metric; all there are."""

REASONS: Mapping[EndKind, str] = {
    EndKind.OK: "ok",
    EndKind.TIMEOUT: "timeout",
    EndKind.OOM: "oom",
    EndKind.CANCELLED: "killed",
    EndKind.SIGNAL: "killed",
    EndKind.POLICY_DENIED: "policy",
}
"""How a sandbox ended -> the label ``reason``; anything else is ``error``."""


@attrs.define
class Histogram:
    """Counts by how long something took."""

    counts: list[int] = attrs.field(factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def samples(self, name: str, labels: Labels) -> Iterator[str]:
        """Yield its lines."""
        below = 0
        for bound, count in zip((*map(repr, BUCKETS), "+Inf"), self.counts, strict=True):
            below += count
            yield _sample(f"{name}_bucket", (*labels, ("le", bound)), below)
        yield _sample(f"{name}_sum", labels, self.total)
        yield _sample(f"{name}_count", labels, below)


class Meter:
    """Counts what happens; an ``Observer``.

    Args:
        backend: The name of where sandboxes live.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self._starts: dict[str, Histogram] = {}
        self._exits: Counter[str] = Counter()
        self._denials: Counter[str] = Counter()
        self._failures = 0
        self._waits = Histogram()

    def started(self, info: SandboxInfo, *, seconds: float, ready: bool) -> None:
        """Take note of a start; see ``Observer``."""
        self._starts.setdefault("warm" if ready else "cold", Histogram()).observe(seconds)

    def failed(self, spec: SandboxSpec) -> None:
        """Take note of a start that failed; see ``Observer``."""
        self._failures += 1

    def ended(self, info: SandboxInfo, ended: Ended, usage: Usage) -> None:
        """Take note of an end; see ``Observer``."""
        self._exits[REASONS.get(ended.kind, "error")] += 1

    def denied(self, denial: PolicyDenied, spec: SandboxSpec | None) -> None:
        """Take note of what a rule did not allow."""
        self._denials[denial.rule] += 1

    def waited(self, seconds: float) -> None:
        """Take note of how long someone waited for a place."""
        self._waits.observe(seconds)

    def samples(self) -> Mapping[str, Sequence[str]]:
        """Return name -> lines of what was counted."""
        starts, exits = "sandbox_sdk_sandbox_start_seconds", "sandbox_sdk_sandbox_exits_total"
        waits, failures = (
            "sandbox_sdk_queue_wait_seconds",
            "sandbox_sdk_sandbox_start_failures_total",
        )
        denials = "sandbox_sdk_policy_denials_total"
        return {
            starts: [
                line
                for start, histogram in sorted(self._starts.items())
                for line in histogram.samples(starts, (("start", start), ("backend", self.backend)))
            ],
            exits: [
                _sample(exits, (("reason", reason),), count)
                for reason, count in sorted(self._exits.items())
            ],
            failures: [_sample(failures, (), self._failures)],
            denials: [
                _sample(denials, (("rule", rule),), count)
                for rule, count in sorted(self._denials.items())
            ],
            waits: list(self._waits.samples(waits, ())),
        }


@attrs.frozen
class Gauge:
    """What a gauge or a counter kept elsewhere stands at.

    Attributes:
        name: The metric.
        value: The figure.
        labels: The labels' values, in the metric's order.
    """

    name: str
    value: float
    labels: tuple[str, ...] = ()


def render(meter: Meter, gauges: Sequence[Gauge]) -> str:
    """Return all figures in Prometheus's text format, in the order of the table."""
    lines = {name: list(found) for name, found in meter.samples().items()}
    for gauge in gauges:
        labels = tuple(zip(METRICS[gauge.name].labels, gauge.labels, strict=True))
        lines.setdefault(gauge.name, []).append(_sample(gauge.name, labels, gauge.value))
    out: list[str] = []
    for name, metric in METRICS.items():
        if lines.get(name):
            out += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", *lines[name]]
    return "\n".join(out) + "\n"


def _sample(name: str, labels: Labels, value: float) -> str:
    said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{said}}} {value!r}" if said else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
