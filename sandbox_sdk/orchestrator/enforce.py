"""Holds a client's sandboxes to the operator's rules: as they are made, start, work and live."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Literal, Protocol

import anyio
import attrs

from sandbox_sdk.backends.base import Standing
from sandbox_sdk.errors import ConfigError, PolicyDenied, SandboxError
from sandbox_sdk.orchestrator.notes import Notes
from sandbox_sdk.orchestrator.used import Used
from sandbox_sdk.rulebook import Rulebook
from sandbox_sdk.rules import (
    Circumstances,
    Protection,
    Rule,
    ended_by,
    refusals_of_circumstances,
    refusals_of_spec,
    refusals_of_spending,
    refusals_of_standing,
)
from sandbox_sdk.values import Ended, SandboxInfo, SandboxSpec, Usage

log = logging.getLogger("sandbox_sdk.policies")

DRIFT_SECONDS = 1.0
"""Seconds between two looks at whether what runs is still allowed."""

NOTE_SECONDS = 10.0
"""Seconds of a sandbox's life that are lost at most where its process is killed."""

When = Literal["create", "start"]


@attrs.frozen(kw_only=True)
class Verdict:
    """What one rule says of a sandbox that is asked for.

    Attributes:
        rule: The rule's name.
        source: Where it was written.
        when: At which step it would be refused; ``None`` where it is allowed, as far as that is
            known before it stands.
        reason: Why.
    """

    rule: str
    source: str
    when: When | None = None
    reason: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the rule allows it."""
        return self.when is None


class Guarded(Protocol):
    """What the rules are enforced on."""

    async def running(self) -> Sequence[SandboxInfo]:
        """Return the records of the sandboxes that run here."""
        ...

    async def standing(self, id: str) -> Standing | None:
        """Return what is in force in a sandbox that runs here, its limits read back."""
        ...

    async def stop(self, id: str, why: Ended | None = None) -> SandboxInfo:
        """End a sandbox."""
        ...


@attrs.define
class _Live:
    """A sandbox that starts or runs, and since when its life is not noted."""

    info: SandboxInfo
    since: float = attrs.field(factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


class Enforcer:
    """Says no where a rule does; a backend's ``Gate`` and ``Observer``.

    Args:
        book: The rules.
        notes: Where what was used is remembered.
        client: Who the caller is, as rules name callers.
        known_by: Returns what a sandbox's template is known by: its key, and its names.
        protections: Returns what is in force for a sandbox of what rules may require.
    """

    def __init__(
        self,
        book: Rulebook,
        notes: Notes,
        *,
        client: str,
        known_by: Callable[[SandboxSpec], tuple[str, ...]],
        protections: Callable[[SandboxSpec], Iterable[Protection]],
    ) -> None:
        self._book = book
        self._client = client
        self._known_by = known_by
        self._protections = protections
        self._rules = book.read()
        self._used = Used(notes)
        self._live: dict[str, _Live] = {}
        self._lively = anyio.Event()
        self._denied: list[Callable[[PolicyDenied, SandboxSpec | None], None]] = []

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force, read afresh."""
        self._rules = self._book.read()
        return self._rules

    async def refresh(self) -> None:
        """Learn what all clients have used until now; see ``Gate``."""
        if any(rule.cost is not None or rule.lifetime is not None for rule in self.rules):
            await self._used.load()

    async def save(self) -> None:
        """Remember what was used."""
        await self._used.save()

    def tell(self, denied: Callable[[PolicyDenied, SandboxSpec | None], None]) -> None:
        """Have a function called with every denial from now on."""
        self._denied.append(denied)

    def explain(self, spec: SandboxSpec) -> tuple[Verdict, ...]:
        """Return what each rule that is about it says of a sandbox that is asked for so.

        Raises:
            ConfigError: The rules cannot be read: nothing is allowed then.
        """
        rules = self.rules
        self._book.check()
        verdicts: list[Verdict] = []
        for rule in rules:
            if not rule.is_about(spec.metadata, self._client):
                continue
            found = list(self._refusals(rule, spec))
            verdicts.extend(
                Verdict(rule=rule.name, source=rule.source, when=when, reason=reason)
                for when, reason in found
            )
            if not found:
                verdicts.append(Verdict(rule=rule.name, source=rule.source))
        return tuple(verdicts)

    def create(self, spec: SandboxSpec) -> None:
        """Let a sandbox be recorded; see ``Gate``."""
        if _is_own(spec):
            return
        for rule in self._about(spec, fresh=True):
            for reason in self._of_spec(rule, spec):
                raise self._deny(rule, reason, spec)
            for reason in self._now(rule, spec, "", starts=False):
                raise self._deny(rule, reason, spec)

    @contextmanager
    def starting(self, info: SandboxInfo) -> Generator[None, None, None]:
        """Let a sandbox start within; see ``Gate``."""
        spec = info.spec
        if _is_own(spec):
            yield
            return
        for rule in self._about(spec, fresh=True):
            for reason in self._of_spec(rule, spec):
                raise self._deny(rule, reason, spec, info.id)
            for reason in self._now(rule, spec, info.id, starts=True):
                raise self._deny(rule, reason, spec, info.id)
        self._live[info.id] = _Live(info)
        self._lively.set()
        try:
            yield
        except BaseException:
            self._live.pop(info.id, None)
            raise

    def standing(self, standing: Standing) -> None:
        """Let code into a sandbox that stands; see ``Gate``."""
        spec = standing.info.spec
        if _is_own(spec):
            return
        for rule in self._about(spec):
            for reason in refusals_of_standing(rule, standing.isolation, standing.limits):
                raise self._deny(rule, reason, spec, standing.info.id)

    def calling(self, info: SandboxInfo) -> None:
        """Let a call be made in a sandbox that runs; see ``Gate``."""
        if not self._rules or _is_own(info.spec):
            return
        for rule in self._about(info.spec):
            for reason in self._now(rule, info.spec, info.id, starts=False):
                raise self._deny(rule, reason, info.spec, info.id)

    def paying(self, metadata: Mapping[str, str]) -> None:
        """Let a model's call be made for sandboxes of this metadata.

        Raises:
            PolicyDenied: What may be spent is.
        """
        for rule in self._rules:
            if rule.is_about(metadata, self._client):
                for reason in refusals_of_spending(rule, self._used.spent(rule.name)):
                    raise self._deny(rule, reason, None)

    def paid(self, metadata: Mapping[str, str], cost: Decimal) -> None:
        """Take note of what a model's call cost."""
        about = {
            rule.name
            for rule in self._rules
            if rule.cost is not None and rule.is_about(metadata, self._client)
        }
        for name in about:  # once, though rules of two sources have it
            self._used.spend(name, cost)
            self._lively.set()

    async def forget(self, id: str) -> None:
        """Take note that a sandbox was deleted; see ``Gate``."""
        await self._used.forget(id)

    def started(self, info: SandboxInfo, *, seconds: float, ready: bool) -> None:
        """Take no note: a start is let in; see ``Observer``."""

    def failed(self, spec: SandboxSpec) -> None:
        """Take no note; see ``Observer``."""

    def ended(self, info: SandboxInfo, ended: Ended, usage: Usage) -> None:
        """Take note of an end; see ``Observer``."""
        live = self._live.pop(info.id, None)
        if live is not None:
            self._note(live)

    async def run(self, guarded: Guarded) -> None:
        """End what is no longer allowed, as long as anything runs."""
        while True:
            await self._lively.wait()
            await anyio.sleep(DRIFT_SECONDS)
            self._lively = anyio.Event()
            await self.check(guarded)
            if self._live:
                self._lively.set()

    async def check(self, guarded: Guarded) -> tuple[str, ...]:
        """End every sandbox that rules do not allow as it runs; return their ids."""
        for live in self._live.values():
            if live.seconds >= NOTE_SECONDS:  # or a killed process would have it live for ever
                self._note(live)
        try:
            await self._used.save()
            await self.refresh()
        except SandboxError as error:
            log.warning("policies.not_remembered", extra={"reason": error.message})
        if not self.rules:
            return ()
        stopped: list[str] = []
        for info in await guarded.running():
            try:
                if denial := await self._drifted(info, guarded):
                    await guarded.stop(info.id, ended_by(denial))
                    stopped.append(info.id)
            except (OSError, SandboxError) as error:
                # One sandbox's trouble must not keep others from being looked at, now or later.
                about = {"sandbox_id": info.id, "reason": str(error)}
                log.warning("policies.not_enforced", extra=about)
        return tuple(stopped)

    async def _drifted(self, info: SandboxInfo, guarded: Guarded) -> PolicyDenied | None:
        """Return why a sandbox that runs is no longer allowed."""
        spec = info.spec
        if _is_own(spec):
            return None
        about = [rule for rule in self._rules if rule.is_about(spec.metadata, self._client)]
        standing = await guarded.standing(info.id) if about else None
        for rule in about:
            reasons = [
                *self._of_spec(rule, spec),
                *self._now(rule, spec, info.id, starts=False),
            ]
            if standing is not None:
                reasons += refusals_of_standing(rule, standing.isolation, standing.limits)
            if reasons:
                return self._deny(rule, "; ".join(reasons), spec, info.id)
        return None

    def _note(self, live: _Live) -> None:
        """Take note of how long a sandbox has lived since that was last done."""
        if any(rule.lifetime is not None for rule in self._rules):
            self._used.live(live.info.id, live.seconds)
            live.since = time.monotonic()

    def _refusals(self, rule: Rule, spec: SandboxSpec) -> Iterable[tuple[When, str]]:
        for reason in self._of_spec(rule, spec):
            yield "create", reason
        early = list(self._now(rule, spec, "", starts=False))
        for reason in early:
            yield "create", reason
        for reason in self._now(rule, spec, "", starts=True):
            if reason not in early:
                yield "start", reason

    def _about(self, spec: SandboxSpec, *, fresh: bool = False) -> list[Rule]:
        """Return the rules that are about a sandbox.

        Raises:
            PolicyDenied: They cannot be read, and nothing new is allowed.
        """
        rules = self.rules if fresh else self._rules
        if fresh:
            try:
                self._book.check()
            except ConfigError as error:
                raise PolicyDenied(
                    f"the rules cannot be read, so nothing new is allowed: {error.message}",
                    rule="unread",
                ) from error
        return [rule for rule in rules if rule.is_about(spec.metadata, self._client)]

    def _now(self, rule: Rule, spec: SandboxSpec, id: str, *, starts: bool) -> Iterable[str]:
        others = [
            each
            for each in self._live.values()
            if each.info.id != id and rule.is_about(each.info.spec.metadata, self._client)
        ]
        lived = self._used.lived(id)
        if id in self._live:
            lived += self._live[id].seconds
        now = Circumstances(
            protections=frozenset(self._protections(spec)),
            lived=lived,
            running=len(others),
            spent=self._used.spent(rule.name),
        )
        return refusals_of_circumstances(rule, now, starts=starts)

    def _of_spec(self, rule: Rule, spec: SandboxSpec) -> Iterable[str]:
        # What a template is known by is on the disk.
        return refusals_of_spec(rule, spec, self._known_by(spec) if rule.templates else ())

    def _deny(
        self, rule: Rule, reason: str, spec: SandboxSpec | None, id: str | None = None
    ) -> PolicyDenied:
        denial = rule.denied(reason, id)
        log.warning("policies.denied", extra={"rule": rule.name, "reason": reason})
        for denied in self._denied:
            denied(denial, spec)
        return denial


def _is_own(spec: SandboxSpec) -> bool:
    """Return whether the SDK made it for itself, and no guest's code runs there: a local model."""
    return spec.internal and bool(spec.mounts)
