"""What of a client's doings is recorded, and how strictly."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import anyio
import attrs

from sandbox_sdk.audit.events import Actor, Content, Entry
from sandbox_sdk.audit.log import AuditLog
from sandbox_sdk.errors import PolicyDenied, SandboxError
from sandbox_sdk.policies import STRONG
from sandbox_sdk.values import Ended, EndKind, SandboxInfo, SandboxSpec, SecurityLevel, Usage

# Levels of STRONG are recorded unless settings say no, and nothing goes on unrecorded there.


class Auditor:
    """Records calls. It is an ``Observer`` of a backend, too.

    Args:
        log: Where.
        every_level: Whether sandboxes of all levels are recorded, or only those of ``STRONG``.
        who: Returns who makes the call that is under way.
    """

    def __init__(
        self, log: AuditLog, *, every_level: bool, who: Callable[[], Actor] = Actor.local
    ) -> None:
        self.log = log
        self._every_level = every_level
        self._who = who
        self._token = secrets.token_hex(4)
        self._calls = itertools.count(1)

    def wants(self, level: SecurityLevel) -> bool:
        """Return whether what is done to a sandbox of this level is recorded."""
        return self._every_level or level in STRONG

    async def record(
        self,
        what: str,
        subject: str = "",
        data: Mapping[str, Any] | None = None,
        *,
        level: SecurityLevel | None = None,
    ) -> None:
        """Record something that is done, durable on return: a change of policy, keys or access.

        Args:
            what: For example ``keys.rotate``.
            subject: On what.
            data: What else there is to say.
            level: Of the sandbox that it is about; if nothing goes on unrecorded there, it is an
                error if it cannot be written.

        Raises:
            SandboxError: It cannot be recorded, and must be.
        """
        entry = self._entry(what, subject, {"actor": self._who(), **(data or {})})
        await self.log.record(entry, must=level in STRONG)

    async def begin(
        self,
        what: str,
        subject: str,
        level: SecurityLevel,
        data: Mapping[str, Any] | None = None,
        *,
        content: Content | None = None,
        new_work: bool = True,
    ) -> Control:
        """Record that a call of the control plane begins.

        Args:
            what: For example ``sandbox.create``.
            subject: On what.
            level: Of the sandbox.
            data: What else there is to say.
            content: What is told as a digest only.
            new_work: Whether it is refused where events cannot be recorded and must be; an end
                never is.

        Raises:
            StateError: It is refused.
        """
        must = new_work and level in STRONG
        if must:
            self.log.check()
        call = Control(self, what, subject, self._number(), must)
        about = {"actor": self._who(), "call": call.number, **(data or {})}
        await self.log.announce(self._entry(f"{what}.began", subject, about, content))
        return call

    def keeps(self, level: SecurityLevel) -> bool:
        """Return whether what is done to a sandbox of this level is recorded, and can be now."""
        return self.wants(level) and self.log.failure is None

    def denied(self, denial: PolicyDenied, spec: SandboxSpec | None) -> None:
        """Record that a rule of the operator's did not allow something.

        Before the log is open no sandbox was asked for, whose own refusal names the rule.
        """
        wanted = self._every_level if spec is None else self.wants(spec.security_level)
        if wanted and self.log.is_open:
            subject = denial.sandbox_id or ""
            data = {"actor": self._who(), "rule": denial.rule, "name": spec.name if spec else ""}
            self.log.emit(self._entry("policy.denied", subject, data))

    def watcher(self, info: SandboxInfo) -> Watcher | None:
        """Return what records the calls inside a sandbox, or ``None`` if they are not.

        ``open()`` of the log comes first.
        """
        level = info.spec.security_level
        return Watcher(self, info.id, level in STRONG) if self.wants(level) else None

    def started(self, info: SandboxInfo, *, seconds: float, ready: bool) -> None:
        """Take no note: the call that starts a sandbox is recorded."""

    def failed(self, spec: SandboxSpec) -> None:
        """Take no note: the call that would start a sandbox is recorded."""

    def ended(self, info: SandboxInfo, ended: Ended, usage: Usage) -> None:
        """Record how a sandbox ended, whoever ended it."""
        if self.wants(info.spec.security_level):
            used = {"cpu_seconds": usage.cpu_seconds, "memory_peak_bytes": usage.memory_peak_bytes}
            self.log.emit(self._entry("sandbox.ended", info.id, {**outcome(ended), **used}))

    def _emit(
        self, what: str, subject: str, data: Mapping[str, Any], content: Content | None = None
    ) -> None:
        self.log.emit(self._entry(what, subject, data, content))

    def _entry(
        self, what: str, subject: str, data: Mapping[str, Any], content: Content | None = None
    ) -> Entry:
        return Entry(type=f"sandbox-sdk.{what}", subject=subject, data=data, content=content)

    def _number(self) -> str:
        return f"{self._token}-{next(self._calls)}"


@attrs.define(eq=False)
class Control:
    """A call of the control plane that began.

    Attributes:
        number: What its two events have in common.
        subject: On what.
    """

    _auditor: Auditor
    _what: str
    subject: str
    number: str
    _must: bool

    async def done(self, data: Mapping[str, Any] | None = None) -> None:
        """Record that it was done, durable on return.

        Raises:
            SandboxError: It cannot be recorded, and must be.
        """
        await self._end({"outcome": "ok", **(data or {})}, must=self._must)

    async def failed(self, error: BaseException) -> None:
        """Record that it was not done, durable on return; never an error of its own."""
        with anyio.CancelScope(shield=True):
            await self._end(failure(error), must=False)

    async def _end(self, data: Mapping[str, Any], *, must: bool) -> None:
        about = {"call": self.number, **data}
        entry = Entry(type=f"sandbox-sdk.{self._what}.ended", subject=self.subject, data=about)
        await self._auditor.log.record(entry, must=must)


@attrs.frozen
class Watcher:
    """Records the calls inside one sandbox."""

    _auditor: Auditor
    _sandbox_id: str
    _must: bool

    def call(self, what: str, content: Content | None, about: Mapping[str, Any]) -> Watched:
        """Return a call to enter.

        Raises:
            StateError: Events cannot be recorded, and must be.
        """
        if self._must:
            self._auditor.log.check()
            about = {name: _veiled(name, each) for name, each in about.items()}
        return Watched(self._auditor, self._sandbox_id, what, content, about)


class Watched:
    """One call inside a sandbox, recorded as it begins and as it ends."""

    __slots__ = (
        "_about",
        "_auditor",
        "_began",
        "_content",
        "_number",
        "_result",
        "_sandbox",
        "_what",
    )

    def __init__(
        self,
        auditor: Auditor,
        sandbox: str,
        what: str,
        content: Content | None,
        about: Mapping[str, Any],
    ) -> None:
        self._auditor = auditor
        self._sandbox = sandbox
        self._what = what
        self._content = content
        self._about = about
        self._number = auditor._number()  # pyright: ignore[reportPrivateUsage] - its other half
        self._began = 0.0
        self._result: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        who = self._auditor._who()  # pyright: ignore[reportPrivateUsage] - its other half
        about = {"actor": who, "call": self._number, **self._about}
        self._emit("began", about, self._content)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        result = self._result
        if result is None:
            result = {"outcome": "ok"} if exc is None else failure(exc)
        seconds = round(time.monotonic() - self._began, 6)
        self._emit("ended", {"call": self._number, "seconds": seconds, **result}, None)

    def finished(self, ended: Ended, **more: object) -> None:
        """Take note of how it ended."""
        self._result = {**outcome(ended), **more}

    def wrote(self, **more: object) -> None:
        """Take note of what was done."""
        self._result = {"outcome": "ok", **more}

    def _emit(self, when: str, data: Mapping[str, Any], content: Content | None) -> None:
        emit = self._auditor._emit  # pyright: ignore[reportPrivateUsage] - its other half
        emit(f"{self._what}.{when}", self._sandbox, data, content)


def _veiled(name: str, value: Any) -> Any:
    """Return a path as its SHA-256: where workspaces are sealed, so are the names in them."""
    if name not in ("path", "target"):
        return value
    return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"


def outcome(ended: Ended) -> dict[str, object]:
    """Return how something ended, without its words, which may be anybody's."""
    found: dict[str, object] = {"outcome": ended.kind.value}
    for name in ("exit_code", "signal", "limit", "limit_value"):
        if (value := getattr(ended, name)) is not None:
            found[name] = value
    if ended.bytes_seen:
        found["output_bytes"] = ended.bytes_seen
    return found


def failure(error: BaseException) -> dict[str, object]:
    """Return what an error makes of a call: its code, not its message, which may be anybody's."""
    if isinstance(error, SandboxError):
        rule = {"rule": error.rule} if isinstance(error, PolicyDenied) else {}
        return {"outcome": "error", "error": error.code, **rule}
    if isinstance(error, Exception):
        return {"outcome": "error", "error": type(error).__name__}
    return {"outcome": EndKind.CANCELLED.value}
