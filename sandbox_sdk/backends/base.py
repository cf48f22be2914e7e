"""The two planes of a backend: lifecycle calls, and one channel of frames per sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import attrs

from sandbox_sdk.values import Collected, Ended, Isolation, Limit, SandboxInfo, SandboxSpec, Usage


@attrs.frozen(kw_only=True)
class Standing:
    """What holds for a set-up sandbox.

    Attributes:
        isolation: What is in force, proven from inside.
        limits: Its limits and what holds each.
    """

    isolation: Isolation
    limits: tuple[Limit, ...]


@attrs.frozen(kw_only=True)
class LimitHits:
    """How often the kernel acted on a sandbox's limits since it was set up.

    Attributes:
        oom_kills: Processes killed for memory.
        pids_refused: Forks refused.
    """

    oom_kills: int = 0
    pids_refused: int = 0


class Channel(Protocol):
    """An ordered two-way stream of frames to the agent of one sandbox."""

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            ConnectionError: The agent is gone.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            ConnectionError: The agent is gone.
            ProtocolError: What came is no frame.
        """
        ...


class Backend(Protocol):
    """Where sandboxes live. Calls are idempotent unless they say otherwise."""

    async def create(self, spec: SandboxSpec) -> SandboxInfo:
        """Record a new sandbox; not idempotent."""
        ...

    async def start(self, id: str) -> Standing:
        """Set a sandbox up, or return at once what holds if it runs here.

        Raises:
            SandboxNotFound: There is none.
            SandboxBusy: Another live process holds it.
            IsolationError: A wall could not be had or proven.
            LaunchError: It did not start.
        """
        ...

    async def stop(self, id: str, why: Ended | None = None) -> None:
        """End a sandbox and wait until nothing of it is left but its workspace and results.

        Args:
            id: The sandbox.
            why: How it ended then, if it was not its user's wish.

        Raises:
            SandboxBusy: Another live process holds it.
        """
        ...

    async def delete(self, id: str) -> None:
        """Stop a sandbox and remove its record, workspace and results.

        Raises:
            SandboxNotFound: There is none.
            SandboxBusy: Another live process holds it.
        """
        ...

    async def get(self, id: str) -> SandboxInfo:
        """Return a sandbox's record.

        Raises:
            SandboxNotFound: There is none.
        """
        ...

    async def list(self, *, include_internal: bool = False) -> tuple[SandboxInfo, ...]:
        """Return all records, oldest first."""
        ...

    async def usage(self, ids: Sequence[str]) -> tuple[Usage, ...]:
        """Return what each sandbox uses now, in the order asked."""
        ...

    async def limit_hits(self, id: str) -> LimitHits:
        """Return what the kernel counted against a running sandbox's limits."""
        ...

    async def ended(self, id: str) -> Ended:
        """Wait until a sandbox that ran here has ended, and return how."""
        ...

    def connect(self, id: str) -> AbstractAsyncContextManager[Channel]:
        """Open the channel to a running sandbox; one at a time."""
        ...

    async def collect(self, id: str, patterns: Sequence[str], destination: Path) -> Collected:
        """Copy files of a workspace into a content-addressed folder, running or not."""
        ...

    def read_file(self, id: str, path: str) -> AsyncIterator[bytes]:
        """Yield a file of a workspace, running or not; no link is followed.

        Raises:
            FileError: It is missing, no regular file, or not plainly inside the workspace.
        """
        ...

    async def aclose(self) -> None:
        """End every sandbox that runs here and give everything back."""
        ...
