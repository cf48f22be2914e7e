"""A sandbox: what it may use, how it is asked for, and its record."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal

import attrs

from sandbox_sdk.values.ending import Ended

RuntimeName = Literal["zygote", "bubblewrap"]
"""What builds sandboxes, the preferred first."""

Reserve = Literal["peak", "limit"]
"""What a place for a sandbox reserves of memory: by the peaks seen of its like, or its limit."""

SecurityLevel = Literal["low", "medium", "high", "maximum", "unsafe"]
"""A set of promises, weakest to strongest but for ``unsafe``, which promises nothing."""

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@attrs.frozen(kw_only=True)
class Resources:
    """What one sandbox may use. Sizes are bytes.

    Attributes:
        memory_bytes: Memory and swap together, of all its processes.
        cpu: CPU seconds per second; ``0.5`` is half a core.
        pids: Processes and threads at one time, the agent's not counted.
        disk_bytes: Size of the workspace.
        disk_files: Files and folders in the workspace.
        tmp_bytes: Size of ``/tmp`` and, apart, of ``/dev/shm``; both count as memory.
        file_size_bytes: Size of any one file.
        open_files: Descriptors open at one time, per process.
        output_bytes: What one call may write to standard output and error together.
    """

    memory_bytes: int = GIB
    cpu: float = 1.0
    pids: int = 256
    disk_bytes: int = GIB
    disk_files: int = 100_000
    tmp_bytes: int = 256 * MIB
    file_size_bytes: int = 512 * MIB
    open_files: int = 1024
    output_bytes: int = 10 * MIB


@attrs.frozen(kw_only=True)
class Mount:
    """A host file or folder shown read-only inside a sandbox.

    Attributes:
        source: The host's path.
        target: The absolute path inside.
    """

    source: Path
    target: str


@attrs.frozen(kw_only=True)
class SandboxSpec:
    """Everything that decides how a sandbox is made.

    Attributes:
        name: The user's name for it; any printable text of 1 to 200 characters.
        resources: Its limits.
        timeout: Longest life once set up, in seconds; ``None`` is no bound.
        idle_timeout: Longest time without a call, in seconds; ``None`` is no bound.
        security_level: The promises asked for.
        waive: Walls and limits of the level that may be missing, by name.
        env: Environment variables of the code inside; never the host's.
        files: Path inside the workspace -> content, written at the first set-up.
        metadata: The user's own words, kept with the record.
        template: ``python``, ``host`` or a built template's key; ``None`` is the level's default.
        packages: Requirements of the template to build; it has them and nothing else.
        preload: Modules that are imported before the sandbox starts.
        network: What the network allows.
        runtime: What builds it; ``None`` is the first that works on this host.
        seed: Of the random sources that Python code finds inside; ``None`` is fresh randomness.
        mounts: Host files shown read-only inside, for the SDK's own use.
        internal: Made by the SDK for itself (a local model): not listed to users.
        owners: Public Ed25519 keys in hexadecimal, whose holders alone may open its channel, which
            is sealed then.
    """

    name: str
    resources: Resources = Resources()
    timeout: float | None = 3600.0
    idle_timeout: float | None = None
    security_level: SecurityLevel = "medium"
    waive: tuple[str, ...] = ()
    env: Mapping[str, str] = attrs.field(factory=dict[str, str])
    files: Mapping[str, bytes] = attrs.field(
        factory=dict[str, bytes], repr=lambda files: repr(sorted(files))
    )
    metadata: Mapping[str, str] = attrs.field(factory=dict[str, str])
    template: str | None = None
    packages: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    network: Literal["none"] = "none"
    runtime: RuntimeName | None = None
    seed: int | None = None
    mounts: tuple[Mount, ...] = ()
    internal: bool = False
    owners: tuple[str, ...] = ()


class SandboxState(StrEnum):
    """Where a sandbox is in its life."""

    CREATED = "created"
    """Recorded, never set up."""
    RUNNING = "running"
    """Set up, held by a live process."""
    STOPPED = "stopped"
    """Cleaned up or ended; the workspace and results stay."""
    LOST = "lost"
    """Its owner died; the workspace and results stay."""


@attrs.frozen(kw_only=True)
class SandboxInfo:
    """A sandbox's record.

    Attributes:
        id: Its id, ``sb_`` and 26 characters that sort by time.
        spec: How it was asked for.
        state: Where it is in its life.
        created_at: Seconds since the epoch.
        started_at: When it was last set up.
        owner_pid: The process that holds it now.
        ended: How it last ended.
    """

    id: str
    spec: SandboxSpec
    state: SandboxState = SandboxState.CREATED
    created_at: float = 0.0
    started_at: float | None = None
    owner_pid: int | None = None
    ended: Ended | None = None

    @property
    def name(self) -> str:
        """The user's name for it."""
        return self.spec.name


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """Return a new id: ``prefix``, ``_`` and 26 characters that sort by the time of making.

    48 bits of milliseconds and 80 random bits, in Crockford's base 32.
    """
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
