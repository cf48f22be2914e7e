"""Frozen values that cross the layers, and the small protocols by which layers meet."""

from __future__ import annotations

import secrets
import signal as signals
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import attrs

from sandbox_sdk.errors import CallTimeout, CommandFailed

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
        env: Environment variables of the code inside; never the host's.
        files: Path inside the workspace -> content, written at the first set-up.
        metadata: The user's own words, kept with the record.
        mounts: Host files shown read-only inside, for the SDK's own use.
        internal: Made by the SDK for itself (a local model): not listed to users.
    """

    name: str
    resources: Resources = Resources()
    timeout: float | None = 3600.0
    idle_timeout: float | None = None
    security_level: SecurityLevel = "medium"
    env: Mapping[str, str] = attrs.field(factory=dict[str, str])
    files: Mapping[str, bytes] = attrs.field(
        factory=dict[str, bytes], repr=lambda files: repr(sorted(files))
    )
    metadata: Mapping[str, str] = attrs.field(factory=dict[str, str])
    mounts: tuple[Mount, ...] = ()
    internal: bool = False


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


class EndKind(StrEnum):
    """How a command, a code run or a sandbox ended.

    ``ok``, ``nonzero`` and ``signal`` are the program's own doing; all others are verdicts of
    the host, which a program cannot choose.
    """

    OK = "ok"
    NONZERO = "nonzero"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OOM = "oom"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT_LIMIT = "output_limit"
    POLICY_DENIED = "policy_denied"
    CANCELLED = "cancelled"
    SANDBOX_DIED = "sandbox_died"
    INFRA = "infra"


@attrs.frozen(kw_only=True)
class Ended:
    """The one way in which something ended.

    Attributes:
        kind: What ended it.
        exit_code: The exit code, where it exited.
        signal: The signal, where one ended it.
        limit: The name of the limit that was hit, for example ``memory`` or ``timeout``.
        limit_value: That limit's value: bytes, seconds or a count.
        truncated: Whether output was lost.
        bytes_seen: Output bytes that reached the host.
        bytes_kept: Output bytes in the result.
        safe_to_retry: Whether it is certain that nothing of it ran.
        detail: One sentence for people, where there is more to say.
    """

    kind: EndKind
    exit_code: int | None = None
    signal: int | None = None
    limit: str | None = None
    limit_value: float | None = None
    truncated: bool = False
    bytes_seen: int = 0
    bytes_kept: int = 0
    safe_to_retry: bool = False
    detail: str = ""

    def __str__(self) -> str:
        text = self.kind.value
        if self.exit_code:
            text += f" (exit code {self.exit_code})"
        elif self.signal is not None:
            text += f" ({_signal_name(self.signal)})"
        elif self.limit is not None:
            text += (
                f" ({self.limit} {self.limit_value:g})" if self.limit_value else f" ({self.limit})"
            )
        return f"{text}: {self.detail}" if self.detail else text


class AttemptState(StrEnum):
    """How one attempt of a trial ended. Only those in ``COUNTED`` enter a score's denominator."""

    COMPLETED = "completed"
    AGENT_ERROR = "agent_error"
    TIMEOUT = "timeout"
    OOM = "oom"
    LIMIT = "limit"
    POLICY_DENIED = "policy_denied"
    MODEL_ERROR = "model_error"
    INFRA_ERROR = "infra_error"
    CANCELLED = "cancelled"
    BUDGET = "budget"
    LOST = "lost"


COUNTED = frozenset(
    {
        AttemptState.COMPLETED,
        AttemptState.AGENT_ERROR,
        AttemptState.TIMEOUT,
        AttemptState.OOM,
        AttemptState.LIMIT,
        AttemptState.POLICY_DENIED,
    }
)
"""Attempt states that count in a score's denominator by default."""

ATTEMPT_STATE: Mapping[EndKind, AttemptState] = {
    EndKind.OK: AttemptState.COMPLETED,
    EndKind.NONZERO: AttemptState.AGENT_ERROR,
    EndKind.SIGNAL: AttemptState.AGENT_ERROR,
    EndKind.TIMEOUT: AttemptState.TIMEOUT,
    EndKind.OOM: AttemptState.OOM,
    EndKind.PIDS: AttemptState.LIMIT,
    EndKind.DISK: AttemptState.LIMIT,
    EndKind.OUTPUT_LIMIT: AttemptState.LIMIT,
    EndKind.POLICY_DENIED: AttemptState.POLICY_DENIED,
    EndKind.CANCELLED: AttemptState.CANCELLED,
    EndKind.SANDBOX_DIED: AttemptState.INFRA_ERROR,
    EndKind.INFRA: AttemptState.INFRA_ERROR,
}
"""What the end of an attempt's decisive command or code makes of the attempt; total."""


@attrs.frozen(kw_only=True)
class CommandResult:
    """What a command did.

    Attributes:
        ended: How it ended.
        stdout_bytes: What it wrote to standard output, as far as it was kept.
        stderr_bytes: The same for standard error.
        duration: Seconds from start to end, on the host's clock.
    """

    ended: Ended
    stdout_bytes: bytes = attrs.field(default=b"", repr=False)
    stderr_bytes: bytes = attrs.field(default=b"", repr=False)
    duration: float = 0.0

    @property
    def stdout(self) -> str:
        """Standard output as UTF-8 text, undecodable bytes replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as UTF-8 text, undecodable bytes replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it exited with code 0."""
        return self.ended.kind is EndKind.OK

    @property
    def exit_code(self) -> int | None:
        """The exit code, where it exited by itself."""
        return self.ended.exit_code

    def check(self) -> CommandResult:
        """Return this result if the command ended ``ok``.

        Raises:
            CallTimeout: It ran longer than the call's ``timeout``.
            CommandFailed: It ended in any other way but ``ok``.
        """
        _check("command", self.ended, self.stdout, self.stderr)
        return self


@attrs.frozen(kw_only=True)
class CodeError:
    """An exception that ended code.

    Attributes:
        name: The exception's class, for example ``ValueError``.
        message: Its text.
        traceback: The whole traceback as text.
    """

    name: str
    message: str
    traceback: str = ""


@attrs.frozen(kw_only=True)
class CodeResult:
    """What a piece of code did.

    Attributes:
        ended: How it ended; code that raised ends ``nonzero``.
        stdout: What it wrote to standard output, undecodable bytes replaced.
        stderr: The same for standard error.
        results: MIME type -> content, one bundle per value shown; now the last expression's.
        error: The exception that ended it, where one did.
        duration: Seconds from start to end, on the host's clock.
    """

    ended: Ended
    stdout: str = attrs.field(default="", repr=False)
    stderr: str = attrs.field(default="", repr=False)
    results: tuple[Mapping[str, str], ...] = ()
    error: CodeError | None = None
    duration: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without an exception."""
        return self.ended.kind is EndKind.OK

    @property
    def text(self) -> str | None:
        """The last expression's value as text, or ``None`` if there was none."""
        return self.results[-1].get("text/plain") if self.results else None

    def check(self) -> CodeResult:
        """Return this result if the code ended ``ok``.

        Raises:
            CallTimeout: It ran longer than the call's ``timeout``.
            CommandFailed: It ended in any other way but ``ok``.
        """
        _check("code", self.ended, self.stdout, self.stderr)
        return self


@attrs.frozen(kw_only=True)
class FileInfo:
    """One file or folder inside a sandbox.

    Attributes:
        path: Absolute path inside.
        kind: What it is.
        size_bytes: Size of a file's content.
        mode: Permission bits.
        modified_at: Seconds since the epoch.
        target: Where a symbolic link points.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "other"]
    size_bytes: int = 0
    mode: int = 0
    modified_at: float = 0.0
    target: str | None = None


@attrs.frozen(kw_only=True)
class Artifact:
    """Bytes kept by their digest.

    Attributes:
        path: Path relative to the workspace, or the name the SDK gave them.
        size_bytes: Their length.
        sha256: Their digest, in hexadecimal.
        media_type: Guessed from the name.
    """

    path: str
    size_bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


@attrs.frozen(kw_only=True)
class Collected:
    """What left a workspace, and what was left behind and why.

    Attributes:
        artifacts: The files that were copied.
        skipped: Path -> the reason it was not.
    """

    artifacts: tuple[Artifact, ...] = ()
    skipped: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Wall:
    """One wall of isolation, as found on this host or in force in a sandbox.

    Attributes:
        name: The kernel's word, for example ``seccomp`` or ``pid_namespace``.
        in_force: Whether it stands.
        detail: How that was found out, or the reason it does not stand.
        fix: What makes it stand, where it does not.
    """

    name: str
    in_force: bool
    detail: str = ""
    fix: str = ""


@attrs.frozen(kw_only=True)
class Isolation:
    """What is really in force in a running sandbox, proven from inside at set-up.

    Attributes:
        level: The security level, all of whose promises hold.
        runtime: What made the sandbox, for example ``bubblewrap``.
        walls: Every wall, with how it was proven.
    """

    level: SecurityLevel
    runtime: str
    walls: tuple[Wall, ...] = ()


@attrs.frozen(kw_only=True)
class Limit:
    """One limit and what holds it.

    Attributes:
        name: ``memory``, ``cpu``, ``pids``, ``disk`` and so on.
        value: Bytes, seconds, cores or a count; ``None`` is no limit.
        held_by: ``cgroup-v2``, ``cgroup-v1``, ``rlimit``, ``watchdog``, ``mount``,
            ``host-clock``, or ``none`` where nothing on this host can hold it.
        note: What it does not cover, for example how far a watchdog may be overshot.
    """

    name: str
    value: float | None
    held_by: str
    note: str = ""


@attrs.frozen(kw_only=True)
class Usage:
    """What one sandbox uses now. A figure that cannot be had is ``None``, never 0.

    Attributes:
        sandbox_id: The sandbox.
        cpu_seconds: CPU time of all its processes since it started.
        memory_bytes: Memory of all its processes.
        memory_peak_bytes: The most it ever was, where the kernel keeps it.
        pids: Processes and threads.
        source: ``cgroup-v2``, ``cgroup-v1`` or ``proc-sum``.
        reason: Why a figure is missing.
    """

    sandbox_id: str
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    pids: int | None = None
    source: str = ""
    reason: str = ""


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


@runtime_checkable
class Process(Protocol):
    """A command that is running in a sandbox."""

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Standard output as it comes; ends when the command closed it."""
        ...

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """Standard error as it comes; ends when the command closed it."""
        ...

    async def write(self, data: bytes) -> None:
        """Write to standard input; waits while the command does not read."""
        ...

    async def close_stdin(self) -> None:
        """End standard input."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to the command."""
        ...

    async def wait(self) -> Ended:
        """Wait for the end. Output not read by then is dropped and counted."""
        ...


class WorkspaceFiles(Protocol):
    """File operations inside a sandbox, as experiments use them."""

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes."""
        ...

    async def write(self, path: str, data: bytes | str) -> None:
        """Write a file, its parent folders included."""
        ...


class Workplace(Protocol):
    """What an experiment needs of a sandbox: no more than any user has."""

    @property
    def id(self) -> str:
        """The sandbox's id."""
        ...

    @property
    def info(self) -> SandboxInfo:
        """Its record as last known: state, and how it ended once it did."""
        ...

    @property
    def isolation(self) -> Isolation | None:
        """What is in force, proven from inside; ``None`` before set-up."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Its limits and what holds each; empty before set-up."""
        ...

    @property
    def files(self) -> WorkspaceFiles:
        """Its files."""
        ...

    async def setup(self) -> None:
        """Start it if it does not run."""
        ...

    async def run_command(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """Run a command to its end; a ``str`` goes to ``/bin/bash -c``."""
        ...

    async def run_code(
        self,
        code: str,
        *,
        language: str = "python",
        context: str | None = None,
        timeout: float | None = None,
    ) -> CodeResult:
        """Run code to its end, in a fresh context or the kept one of that name."""
        ...

    async def collect(self, patterns: Sequence[str], destination: Path) -> Collected:
        """Copy files of the workspace to ``destination/sha256/ab/cdef...`` on the host."""
        ...

    async def usage(self) -> Usage:
        """What it uses now."""
        ...


class ModelHost(Protocol):
    """Starts a program of the SDK's own in a sandbox without network, for a local model."""

    def start_program(
        self,
        name: str,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount],
        files: Mapping[str, bytes],
        resources: Resources,
    ) -> AbstractAsyncContextManager[Process]:
        """Run ``command`` in a fresh sandbox that ends with the context.

        The command starts in the folder that ``files`` were written to. The context may be
        entered in one task and left in another: a model outlives the call that loaded it.
        """
        ...


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """Return a new id: ``prefix``, ``_`` and 26 characters that sort by the time of making.

    48 bits of milliseconds and 80 random bits, in Crockford's base 32.
    """
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _check(what: str, ended: Ended, stdout: str, stderr: str) -> None:
    if ended.kind is EndKind.OK:
        return
    tail = (stderr or stdout).strip()[-500:]
    message = f"the {what} ended {ended}" + (f"; its last output: {tail}" if tail else "")
    if ended.kind is EndKind.TIMEOUT and ended.limit == "timeout":
        message += "; pass a larger timeout= to allow it more time"
        raise CallTimeout(message, ended=ended, stdout=stdout, stderr=stderr)
    raise CommandFailed(message, ended=ended, stdout=stdout, stderr=stderr)
