"""One sandbox as its user holds it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
import attrs

from sandbox_sdk import calls, requests
from sandbox_sdk.contexts import Context, run_fresh
from sandbox_sdk.errors import ConfigError, SandboxClosed
from sandbox_sdk.files import AsyncFiles
from sandbox_sdk.link import Link
from sandbox_sdk.process import AsyncProcess
from sandbox_sdk.process import start as start_process
from sandbox_sdk.values import (
    CodeResult,
    Collected,
    CommandResult,
    Ended,
    EndKind,
    Isolation,
    Limit,
    SandboxInfo,
    SandboxState,
    Shelf,
    Usage,
)

if TYPE_CHECKING:
    from sandbox_sdk.experiments.results.result import ExperimentResult
    from sandbox_sdk.parts import Parts


class AsyncSandbox:
    """An isolated place to run commands, code and experiments in.

    Made by a client. Anything that needs it running sets it up by itself; leaving
    ``async with`` cleans it up. Its workspace and results stay until it is deleted.
    """

    def __init__(self, info: SandboxInfo, parts: Parts) -> None:
        self._info = info
        self._parts = parts
        self._link: Link | None = None
        self._closed = False
        self._deleted = False
        self._isolation: Isolation | None = None
        self._limits: tuple[Limit, ...] = ()
        self._contexts: dict[str, Context] = {}
        self._setting_up = anyio.Lock(fast_acquire=True)  # guards _link: one set-up at a time
        self._files = AsyncFiles(self._linked, info.id, parts.backend.read_file)

    async def __aenter__(self) -> Self:
        await self.setup()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.cleanup()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r} {self.info.state}>"

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self._info.id

    @property
    def name(self) -> str:
        """The user's name for it."""
        return self._info.name

    @property
    def info(self) -> SandboxInfo:
        """Its record as this process knows it."""
        ended = self._link.ended if self._link else None
        if ended is None:
            return self._info
        return attrs.evolve(self._info, state=SandboxState.STOPPED, owner_pid=None, ended=ended)

    @property
    def isolation(self) -> Isolation | None:
        """What is in force, proven from inside at set-up; ``None`` before."""
        return self._isolation

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Its limits and what holds each; empty before set-up."""
        return self._limits

    @property
    def files(self) -> AsyncFiles:
        """Its files."""
        return self._files

    async def setup(self) -> None:
        """Start the sandbox, or return at once if it runs.

        After ``cleanup()``, an end by a limit, or its owner's death it starts anew over the same
        workspace.

        Raises:
            SandboxNotFound: It was deleted.
            SandboxBusy: Another live process holds it.
            IsolationError: A wall of its security level cannot be had, or was not proven.
            LaunchError: It did not start.
        """
        async with self._setting_up:
            if self._link is not None and not self._link.lost and not self._closed:
                return
            standing = await self._parts.backend.start(self.id)
            resources = self._info.spec.resources
            watcher = self._parts.watcher(standing.info)
            self._link = await Link.open(
                self.id,
                self._parts.backend,
                resources,
                self._parts.supervisor,
                watcher,
                partial(self._parts.enforcer.calling, standing.info),
            )
            self._closed = False
            self._contexts = {}
            self._isolation, self._limits = standing.isolation, standing.limits
            self._info = standing.info

    async def cleanup(self) -> None:
        """End the sandbox and wait until its processes, mounts and control groups are gone.

        Idempotent. Workspace and results stay; ``delete_sandbox`` removes them, and with them the
        need for this.

        Raises:
            SandboxBusy: Another live process holds it.
        """
        if self._deleted or self._parts.closed:  # closing the client cleaned up
            return
        self._info = await self._parts.backend.stop(self.id)
        self._closed = True
        self._link = None

    async def run_command(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout: float | None = None,
        tty: bool = False,
        columns: int = 80,
        rows: int = 24,
    ) -> CommandResult:
        """Run a command to its end and return what it did, however it ended.

        Args:
            command: A program and its arguments; a ``str`` is run by ``/bin/bash -c``.
            cwd: Where it begins; relative to ``/workspace``, which is the default.
            env: Variables besides those of the sandbox.
            stdin: What it reads; without it, nothing.
            timeout: Seconds; then it is killed with all its descendants and ends ``timeout``.
                ``None`` is bounded by the sandbox's lifetime only.
            tty: Whether it has a terminal, on which all its output is ``stdout``, echo and
                carriage returns included, and ``stdin`` is typed.
            columns: The terminal's width.
            rows: Its height.

        Raises:
            ConfigError: An argument cannot be what it says.
            SandboxEnded: The sandbox has ended.
            SandboxClosed: It was cleaned up or deleted.
        """
        terminal = requests.terminal(columns, rows) if tty else None
        request = requests.command(command, cwd=cwd, env=env, terminal=terminal)
        seconds = requests.seconds(timeout)
        data = requests.content(stdin)
        return await calls.run_command(await self._linked(), request, stdin=data, timeout=seconds)

    @asynccontextmanager
    async def start_command(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
        columns: int = 80,
        rows: int = 24,
    ) -> AsyncGenerator[AsyncProcess, None]:
        """Start a command and give it to the block; what still runs after it is killed.

        Args:
            command: A program and its arguments; a ``str`` is run by ``/bin/bash -c``.
            cwd: Where it begins; relative to ``/workspace``, which is the default.
            env: Variables besides those of the sandbox.
            tty: Whether it has a terminal: all output is then ``stdout``, keys make signals, and
                ``resize`` works. ``TERM`` is ``xterm-256color`` unless ``env`` says otherwise.
            columns: The terminal's width.
            rows: Its height.

        Raises:
            ConfigError: An argument cannot be what it says.
            SandboxEnded: The sandbox has ended.
            SandboxClosed: It was cleaned up or deleted.
        """
        terminal = requests.terminal(columns, rows) if tty else None
        request = requests.command(command, cwd=cwd, env=env, terminal=terminal)
        link = await self._linked()
        with link.watching("command", request["argv"]) as watched:
            process = await start_process(link, request)
            try:
                yield process
            finally:
                await process.kill()
                if link.watched:
                    # A sandbox that was deleted meanwhile tells no more how it ended.
                    gone = Ended(kind=EndKind.CANCELLED)
                    watched.finished(gone if link.lost else await process.wait())

    async def run_code(
        self,
        code: str,
        *,
        language: str = "python",
        context: str | None = None,
        timeout: float | None = None,
    ) -> CodeResult:
        """Run code to its end and return what it showed, however it ended.

        Args:
            code: The source. As in a notebook, ``results`` holds what it gives to ``display``,
                the figures of matplotlib that it leaves open, and the value of a last expression.
            language: ``python`` or ``bash``.
            context: The name of a kept Python context, whose variables live from call to call;
                without it the code has a fresh one.
            timeout: Seconds; then it is killed and ends ``timeout``. A kept context is lost with
                it and begins anew.

        Raises:
            ConfigError: An argument cannot be what it says.
            SandboxEnded: The sandbox has ended.
            SandboxClosed: It was cleaned up or deleted.
            ProtocolError: The code tampered with how its result is sent.
        """
        seconds = requests.seconds(timeout)
        source = requests.code(code)
        if language == "bash":
            if context is not None:
                raise ConfigError("context: only Python has kept contexts; leave it out for bash")
            return calls.as_code(await self.run_command(source, timeout=timeout))
        if language != "python":
            raise ConfigError(f'language: {language!r} is not known; use "python" or "bash"')
        link = await self._linked()
        with link.watching("code", source, context=context) as watched:
            if context is None:
                done = await run_fresh(link, source, timeout=seconds)
            else:
                kept = self._contexts.setdefault(context, Context())
                done = await kept.run(link, source, timeout=seconds)
            watched.finished(done.ended)
        return done

    async def collect(self, patterns: Sequence[str], destination: Path | Shelf) -> Collected:
        """Copy files of the workspace into a content-addressed folder, running or not.

        Args:
            patterns: Paths relative to the workspace; ``*`` stays in a folder, ``**`` crosses.
            destination: The folder on the host; files land below ``sha256/`` in it. Or what keeps
                each file, in its own way.

        Raises:
            StateError: The destination cannot be written.
        """
        return await self._parts.backend.collect(self.id, patterns, destination)

    async def usage(self) -> Usage:
        """Return what it uses now; figures that cannot be had are ``None``, with the reason."""
        (used,) = await self._parts.backend.usage([self.id])
        return used

    async def run_experiment(self, config: Mapping[str, object]) -> ExperimentResult:
        """Run an experiment in this sandbox and record it.

        Args:
            config: For example ``{"model": ..., "prompt": ..., "parameters": {...}}``.

        Raises:
            ConfigError: The config is wrong; all faults at once, before anything is done.
            ModelError: The model cannot be called, as far as is known before.
            SandboxClosed: The sandbox was cleaned up or deleted.
            StateError: The journal cannot be written.
        """
        await self._check_usable()
        return await self._parts.run_experiment(self, config)

    async def export_results(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the results of every experiment run in this sandbox below a folder.

        Args:
            path: The folder, made if it is missing; each run becomes one folder in it.

        Returns:
            The runs' folders, oldest first. One that was exported before is left as it is.

        Raises:
            ExportError: Nothing was run, something else is in the way, or the disk is full.
        """
        return await self._parts.export_results(self.id, requests.local_path(path))

    def _forget(self) -> None:
        """Refuse what comes after a deletion; leaving ``async with`` is none of it."""
        self._closed = self._deleted = True

    async def _check_usable(self) -> None:
        """Go on if the sandbox runs or can be set up by a call.

        Raises:
            SandboxClosed: It was cleaned up or deleted.
            SandboxEnded: It has ended.
        """
        if self._parts.closed:
            raise SandboxClosed(
                "the client is closed: get the sandbox from a new one", sandbox_id=self.id
            )
        if self._deleted:
            raise SandboxClosed(
                f"sandbox {self.id} was deleted: create another", sandbox_id=self.id
            )
        if self._closed:
            raise SandboxClosed(
                f"sandbox {self.id} was cleaned up: call setup() to start it anew over the same "
                "workspace, or create another",
                sandbox_id=self.id,
            )
        if self._link is not None and self._link.lost:
            raise await self._link.why_ended()

    async def _linked(self) -> Link:
        """Return the connection to the running sandbox, set up if it never was.

        Raises:
            SandboxClosed: It was cleaned up or deleted.
            SandboxEnded: It has ended.
        """
        await self._check_usable()
        if self._link is None:
            await self.setup()
        if self._link is None:
            raise SandboxClosed(f"sandbox {self.id} was closed meanwhile", sandbox_id=self.id)
        return self._link
