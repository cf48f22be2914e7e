"""What a store of records offers, whatever keeps them, and the values it deals in."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

import attrs

from sandbox_sdk.values import Ended, SandboxInfo, SandboxState


@attrs.frozen(kw_only=True)
class Lease:
    """The right to run one sandbox, held by one live owner.

    It needs no renewal: it lasts as long as its owner's process, or until it is released.

    Attributes:
        sandbox_id: The sandbox.
        fence: Rises with every new lease; a write under an older one is refused.
    """

    sandbox_id: str
    fence: int


@attrs.frozen(kw_only=True)
class Once:
    """By what a request that must take effect once is known.

    Attributes:
        scope: Whose request it is, and of what kind: other scopes' keys are other keys.
        key: The caller's key.
        digest: Of what the request asks for.
    """

    scope: str
    key: str
    digest: bytes


@attrs.frozen(kw_only=True)
class Taken:
    """A sandbox that is about to be started.

    Attributes:
        lease: The right to run it.
        before: Its record as it was.
        info: Its record now.
        files: What to write at its first set-up; empty at a later one.
    """

    lease: Lease
    before: SandboxInfo
    info: SandboxInfo
    files: Mapping[str, bytes]


@attrs.frozen(kw_only=True)
class DeadLease:
    """A lease whose owner died without releasing it.

    Attributes:
        sandbox_id: The sandbox.
        owner_pid: The process that was its owner.
        state: Where the sandbox was in its life.
        internal: Whether the SDK made it for itself.
    """

    sandbox_id: str
    owner_pid: int
    state: SandboxState
    internal: bool


class Store(Protocol):
    """Records of sandboxes, leases and runs. Every write is durable when the call returns.

    Any call raises ``StateError`` when the records cannot be read or written, and
    ``SandboxClosed`` after ``aclose()``. A cancelled write may or may not have been made.
    """

    @property
    def owner_token(self) -> str:
        """What tells the owner apart that this store writes into the leases it takes."""
        ...

    async def insert_sandbox(self, info: SandboxInfo, once: Once | None = None) -> SandboxInfo:
        """Record a new sandbox, its initial files included.

        Args:
            info: Its record.
            once: By what the request for it is known; noted in the same write. Where that was
                noted before, nothing is recorded.

        Returns:
            The record, or that of the request's first time.

        Raises:
            ConfigError: There is a sandbox with this id.
            IdempotencyMismatch: The request's first time asked for something else.
        """
        ...

    async def get_sandbox(self, id: str) -> SandboxInfo:
        """Return a sandbox's record; its ``spec.files`` is empty (see ``take_sandbox``).

        A record that says ``running`` under a dead owner is returned as ``lost``.

        Raises:
            SandboxNotFound: There is none.
        """
        ...

    def take_sandbox(self, id: str, *, started_at: float) -> Awaitable[Taken]:
        """Take the right to run a sandbox, and record that it runs, in one write.

        The write begins with the call; it is awaited for its outcome.

        Raises:
            SandboxNotFound: There is none.
            SandboxBusy: Another live owner holds it.
        """
        ...

    async def put_back(self, taken: Taken) -> None:
        """Give up a sandbox that could not be started: its record is as it was before."""
        ...

    async def list_sandboxes(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first, without initial files."""
        ...

    async def update_sandbox(
        self,
        lease: Lease,
        *,
        state: SandboxState | None = None,
        started_at: float | None = None,
        ended: Ended | None = None,
        release: bool = False,
    ) -> None:
        """Change what is not ``None`` of a record, in one step with giving the lease back.

        Raises:
            SandboxNotFound: The sandbox was deleted.
            SandboxBusy: The lease is no longer ours.
        """

    async def delete_sandbox(self, lease: Lease) -> None:
        """Delete a sandbox's record with its lease, initial files and list of runs.

        Raises:
            SandboxNotFound: It was deleted before.
            SandboxBusy: The lease is no longer ours.
        """

    async def acquire_lease(self, id: str) -> Lease:
        """Take the right to run a sandbox, from nobody, a dead owner, or this same store.

        Raises:
            SandboxNotFound: There is no such sandbox.
            SandboxBusy: A live owner holds it; the error has its pid.
        """
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Give a lease back; nothing happens if it is no longer ours."""

    async def dead_leases(self) -> tuple[DeadLease, ...]:
        """Return the leases whose owner died.

        To clean up after one: acquire its lease, remove what is left, then ``mark_lost``.
        """
        ...

    async def mark_lost(self, lease: Lease) -> None:
        """Record that the former owner of a sandbox died, and give the lease back.

        ``running`` becomes ``lost``; any other state stays.

        Raises:
            SandboxNotFound: The sandbox was deleted.
            SandboxBusy: The lease is no longer ours.
        """

    async def insert_run(self, run_id: str, sandbox_id: str) -> None:
        """Record that a run belongs to a sandbox.

        Raises:
            SandboxNotFound: There is no such sandbox.
        """

    async def insert_far_run(self, run_id: str, sandbox_id: str) -> None:
        """Record that a run belongs to a sandbox that lives on a server."""

    async def list_runs(self, sandbox_id: str) -> tuple[str, ...]:
        """Return the ids of a sandbox's runs, oldest first; none for an unknown sandbox."""
        ...

    async def forget_far_runs(self, sandbox_id: str) -> None:
        """Forget the runs of a sandbox that lived on a server."""

    async def has_once(self, once: Once) -> bool:
        """Return whether ``insert_sandbox`` was called with this key within a day."""
        ...

    async def begin_once(self, once: Once) -> str | None:
        """Note a request that changes what is there, before its effect.

        Returns:
            What its first time was answered; ``None`` is to do it: it came for the first time, or
            was never answered, as its server was killed.

        Raises:
            IdempotencyMismatch: The request's first time asked for something else.
        """
        ...

    async def end_once(self, once: Once, answer: str) -> None:
        """Note what a request was answered, for a day; it holds no secret."""

    async def aclose(self) -> None:
        """Release what this store holds and close it; again is nothing."""
