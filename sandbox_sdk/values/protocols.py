"""The small protocols by which layers meet that must not know each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from sandbox_sdk.values.ending import Ended
from sandbox_sdk.values.results import CodeResult, Collected, CommandResult, FileInfo
from sandbox_sdk.values.sandbox import Mount, Resources, SandboxInfo, SandboxSpec
from sandbox_sdk.values.standing import Isolation, Limit, Usage


@runtime_checkable
class Shelf(Protocol):
    """Where files that leave a sandbox are kept."""

    def keep(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Store bytes, durable on return, and return their SHA-256 and how many they are.

        Of pieces that end in an error nothing stays.

        Raises:
            OSError: They cannot be written.
        """
        ...


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

    async def write(self, data: bytes | str) -> None:
        """Write to standard input, text as UTF-8; waits while the command does not read."""
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

    async def list(self, path: str = ".") -> list[FileInfo]:
        """Return what is in a folder, sorted by name."""
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

    async def collect(self, patterns: Sequence[str], destination: Path | Shelf) -> Collected:
        """Copy files of the workspace to ``destination/sha256/ab/cdef...`` or a shelf."""
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


class Sandboxes(Protocol):
    """Makes fresh sandboxes for trials and scorers; options have ``create_sandbox``'s names."""

    async def prepare(self, options: Mapping[str, object], path: str = "sandbox") -> SandboxSpec:
        """Return the settings that options mean, every default filled in.

        Raises:
            ConfigError: An option is wrong; all faults at once, each below ``path``.
            TemplateError: There is no template of that name.
        """
        ...

    def start(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Workplace]:
        """Make a sandbox of these settings; it is deleted, files and all, with the context."""
        ...

    def fresh(self, **options: object) -> AbstractAsyncContextManager[Workplace]:
        """Make a sandbox as ``prepare()`` and ``start()`` do, and set it up."""
        ...

    def of_run(self, run: str) -> Sandboxes:
        """Return the same, marking what it makes as one run's."""
        ...

    async def clear(self) -> None:
        """Delete what a dead driver of the run had recorded and not started."""
