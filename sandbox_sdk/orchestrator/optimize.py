"""Chooses memory and numbers by what was seen, says why, and applies it to new sandboxes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import Literal

import attrs

from sandbox_sdk.errors import ConfigError, StateError
from sandbox_sdk.orchestrator.evidence import Evidence, Witness
from sandbox_sdk.orchestrator.notes import Notes
from sandbox_sdk.policies import template_of
from sandbox_sdk.values import MIB, SandboxSpec
from sandbox_sdk.wire import from_json, to_json

HEADROOM = 1.2
"""Memory that is proposed, of the largest peak that was seen."""

ENOUGH = 5
"""Sandboxes of a template that must have ended before anything is proposed for it."""

LEAST_BYTES = 64 * MIB
"""Memory that is proposed at least."""

_STEP = 16 * MIB
_EVIDENCE, _DEFAULTS = "evidence", "default_memory"

log = logging.getLogger("sandbox_sdk.optimize")


@attrs.frozen(kw_only=True)
class Suggestion:
    """One number that would fit better, and why.

    Attributes:
        setting: ``memory``, the default of one template's new sandboxes, in bytes; or
            ``max_concurrency``, which is yours to set: it is never applied.
        template: Whose; empty for all.
        current: What holds now.
        proposed: What would fit.
        evidence: What was seen, in words.
        saving_bytes: Memory that limits would promise less, for as many as ran at once at the
            95th percentile; below 0 where more is needed.
        applied: Whether this call made it the default.
    """

    setting: Literal["memory", "max_concurrency"]
    template: str
    current: int
    proposed: int
    evidence: str
    saving_bytes: int = 0
    applied: bool = False


def suggest(
    known: tuple[Evidence, ...], *, memory_of: Callable[[str], int], places: int
) -> tuple[Suggestion, ...]:
    """Return what would fit better than what holds now; nothing without enough evidence.

    Args:
        known: What was seen of each template.
        memory_of: The memory that a new sandbox of a template gets.
        places: How many trials may run at once.
    """
    found: list[Suggestion] = []
    at_once = 0
    for seen in known:
        if seen.ended < ENOUGH:
            continue
        usual = _percentile(seen.running)
        at_once += usual
        if seen.peak_bytes is None:
            continue
        proposed = max(LEAST_BYTES, math.ceil(seen.peak_bytes * HEADROOM / _STEP) * _STEP)
        current = memory_of(seen.template)
        if proposed == current:
            continue
        evidence = (
            f"{seen.ended} sandboxes ended, {seen.oom} of them for want of memory; largest peak "
            f"{seen.peak_bytes // MIB} MiB, 95th percentile {_percentile(seen.peaks) // MIB} MiB; "
            f"{usual} at once"
        )
        found.append(
            Suggestion(
                setting="memory",
                template=seen.template,
                current=current,
                proposed=proposed,
                evidence=evidence,
                saving_bytes=(current - proposed) * usual,
            )
        )
    if at_once > places:
        evidence = f"{at_once} sandboxes ran at once at the 95th percentile"
        found.append(
            Suggestion(
                setting="max_concurrency",
                template="",
                current=places,
                proposed=at_once,
                evidence=evidence,
            )
        )
    return tuple(found)


def _percentile(figures: tuple[int, ...]) -> int:
    """The 95th percentile by the nearest rank; 0 of none."""
    return sorted(figures)[math.ceil(len(figures) * 0.95) - 1] if figures else 0


class Optimizer:
    """Remembers evidence and the defaults that were chosen by it.

    Args:
        notes: Where.
        witness: What was seen.
        memory_bytes: What a sandbox gets where nothing was chosen.
        places: How many trials may run at once.
    """

    def __init__(self, notes: Notes, witness: Witness, *, memory_bytes: int, places: int) -> None:
        self._notes = notes
        self._witness = witness
        self._memory_bytes = memory_bytes
        self._places = places
        self._chosen: dict[str, int] = {}

    async def load(self) -> None:
        """Read what earlier clients remembered; what cannot be read is forgotten, and said."""
        for template, text in (await self._notes.notes(_EVIDENCE)).items():
            if (known := _read(text)) is not None:
                self._witness.remember(known)
            else:
                log.warning("optimize.evidence_unreadable", extra={"template": template})
        self._chosen = {
            template: int(text) for template, text in (await self._notes.notes(_DEFAULTS)).items()
        }

    async def save(self) -> None:
        """Remember what was seen since this was last called, beside what other clients saw.

        What cannot be written is said and no more: no sandbox must fail for it.
        """
        for more in self._witness.take_new():

            def merged(text: str | None, more: Evidence = more) -> str:
                before = _read(text) if text is not None else None
                return json.dumps(to_json(before.with_more(more) if before else more))

            try:
                await self._notes.change_note(_EVIDENCE, more.template, merged)
            except StateError as error:
                log.warning("optimize.evidence_not_kept", extra={"reason": str(error)})

    def tune(self, spec: SandboxSpec) -> SandboxSpec:
        """Give a new sandbox, which asked for no memory, what was chosen for its template."""
        chosen = self._chosen.get(template_of(spec))
        if chosen is None:
            return spec
        return attrs.evolve(spec, resources=attrs.evolve(spec.resources, memory_bytes=chosen))

    async def suggest(self, *, apply: bool) -> tuple[Suggestion, ...]:
        """Return what would fit better, and make memory the default if it is to be applied."""
        found = suggest(self._witness.all, memory_of=self._memory_of, places=self._places)
        if not apply:
            return found
        for each in found:
            if each.setting == "memory":
                await self._choose(each.template, each.proposed)
                log.info("optimize.applied", extra={"suggestion": attrs.asdict(each)})
        return tuple(attrs.evolve(each, applied=each.setting == "memory") for each in found)

    async def revert(self, template: str | None) -> tuple[str, ...]:
        """Take back what was applied, for one template or all; return the templates.

        Raises:
            ConfigError: Nothing was applied for the template.
        """
        if template is not None and template not in self._chosen:
            known = ", ".join(sorted(self._chosen)) or "none"
            raise ConfigError(f"template: nothing was applied for {template!r}; applied: {known}")
        names = tuple(sorted(self._chosen) if template is None else [template])
        for name in names:
            await self._choose(name, None)
            log.info("optimize.reverted", extra={"template": name})
        return names

    async def _choose(self, template: str, memory_bytes: int | None) -> None:
        text = None if memory_bytes is None else str(memory_bytes)
        await self._notes.change_note(_DEFAULTS, template, lambda _: text)
        if memory_bytes is None:
            del self._chosen[template]
        else:
            self._chosen[template] = memory_bytes

    def _memory_of(self, template: str) -> int:
        return self._chosen.get(template, self._memory_bytes)


def _read(text: str) -> Evidence | None:
    """The evidence that a note holds, or ``None`` if it holds none."""
    try:
        return from_json(Evidence, json.loads(text), lenient=True)
    except (ValueError, ConfigError):
        return None
