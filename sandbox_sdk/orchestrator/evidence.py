"""What sandboxes of each template have needed: the evidence that memory is chosen by."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from sandbox_sdk.orchestrator.snapshot import ResourceSnapshot
from sandbox_sdk.policies import template_of
from sandbox_sdk.values import Ended, EndKind, SandboxInfo, SandboxSpec, Usage

RECENT = 200
"""How many of the latest figures of each kind are kept."""


@attrs.frozen(kw_only=True)
class Evidence:
    """What was seen of one template's sandboxes.

    Attributes:
        template: Its name or key.
        ended: Sandboxes whose totals were seen.
        oom: Those of them that ended for want of memory.
        peak_bytes: The largest peak of any; ``None`` before one was seen.
        peaks: The latest peaks, oldest first.
        running: How many ran at once, the one itself included, at the latest starts.
    """

    template: str
    ended: int = 0
    oom: int = 0
    peak_bytes: int | None = None
    peaks: tuple[int, ...] = ()
    running: tuple[int, ...] = ()

    def with_more(self, more: Evidence) -> Evidence:
        """Return the same with what was seen since."""
        known = [peak for peak in (self.peak_bytes, more.peak_bytes) if peak is not None]
        return Evidence(
            template=self.template,
            ended=self.ended + more.ended,
            oom=self.oom + more.oom,
            peak_bytes=max(known, default=None),
            peaks=(*self.peaks, *more.peaks)[-RECENT:],
            running=(*self.running, *more.running)[-RECENT:],
        )


class Witness:
    """Gathers evidence from every start, look and end; an ``Observer``."""

    def __init__(self, known: Sequence[Evidence] = ()) -> None:
        self._known = {each.template: each for each in known}
        self._new: dict[str, Evidence] = {}
        self._live: dict[str, str] = {}  # sandbox -> template

    @property
    def all(self) -> tuple[Evidence, ...]:
        """What is known of every template, by name."""
        return tuple(self._known[template] for template in sorted(self._known))

    def peak_of(self, template: str) -> int | None:
        """Return the largest peak seen of a template; ``None`` before one was."""
        found = self._known.get(template)
        return found.peak_bytes if found else None

    def remember(self, known: Evidence) -> None:
        """Add what earlier clients saw."""
        before = self._known.get(known.template, Evidence(template=known.template))
        self._known[known.template] = known.with_more(before)

    def take_new(self) -> tuple[Evidence, ...]:
        """Return what was seen since this was last called."""
        new, self._new = self._new, {}
        return tuple(new.values())

    def started(self, info: SandboxInfo, *, seconds: float, ready: bool) -> None:
        """Take note of a start; see ``Observer``."""
        template = self._live[info.id] = template_of(info.spec)
        running = sum(each == template for each in self._live.values())
        self._add(Evidence(template=template, running=(running,)))

    def failed(self, spec: SandboxSpec) -> None:
        """Take note of a start that failed; see ``Observer``."""

    def seen(self, infos: Sequence[SandboxInfo], snapshot: ResourceSnapshot) -> None:
        """Take note of what runs: a peak counts before its sandbox has ended."""
        for info, usage in zip(infos, snapshot.sandboxes, strict=True):
            template, peak = template_of(info.spec), usage.memory_peak_bytes
            if peak is not None and peak > (self.peak_of(template) or 0):
                self._add(Evidence(template=template, peak_bytes=peak))

    def ended(self, info: SandboxInfo, ended: Ended, usage: Usage) -> None:
        """Take note of an end; see ``Observer``."""
        self._live.pop(info.id, None)
        peak = usage.memory_peak_bytes
        self._add(
            Evidence(
                template=template_of(info.spec),
                ended=1,
                oom=int(ended.kind is EndKind.OOM),
                peak_bytes=peak,
                peaks=() if peak is None else (peak,),
            )
        )

    def _add(self, more: Evidence) -> None:
        for kept in (self._known, self._new):
            before = kept.get(more.template, Evidence(template=more.template))
            kept[more.template] = before.with_more(more)
