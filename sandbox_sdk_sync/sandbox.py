# Generated from sandbox_sdk/sandbox.py. Edit that, then run: nox -s generate -- --write
"""One sandbox as its user holds it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import (
    CodeResult,
    Collected,
    CommandResult,
    Isolation,
    Limit,
    SandboxInfo,
    Shelf,
    Usage,
)
from sandbox_sdk_sync._twin import Twin
from sandbox_sdk_sync.files import Files
from sandbox_sdk_sync.process import Process

if TYPE_CHECKING:
    from sandbox_sdk.experiments.results.result import ExperimentResult


class Sandbox(Twin[AsyncSandbox]):
    """An isolated place to run commands, code and experiments in.

    Made by a client. Anything that needs it running sets it up by itself; leaving
    ``with`` cleans it up. Its workspace and results stay until it is deleted.
    """

    def __enter__(self) -> Self:
        self._enter(self._core)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._core.__aexit__, exc_type, exc, trace)

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self._core.id

    @property
    def name(self) -> str:
        """The user's name for it."""
        return self._core.name

    @property
    def info(self) -> SandboxInfo:
        """Its record as this process knows it."""
        return self._core.info

    @property
    def isolation(self) -> Isolation | None:
        """What is in force, proven from inside at set-up; ``None`` before."""
        return self._core.isolation

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Its limits and what holds each; empty before set-up."""
        return self._core.limits

    @property
    def files(self) -> Files:
        """Its files."""
        return Files(self._core.files, self._portal)

    def setup(self) -> None:
        """Start the sandbox, or return at once if it runs.

        After ``cleanup()``, an end by a limit, or its owner's death it starts anew over the same
        workspace.

        Raises:
            SandboxNotFound: It was deleted.
            SandboxBusy: Another live process holds it.
            IsolationError: A wall of its security level cannot be had, or was not proven.
            LaunchError: It did not start.
        """
        self._call(self._core.setup)

    def cleanup(self) -> None:
        """End the sandbox and wait until its processes, mounts and control groups are gone.

        Idempotent. Workspace and results stay; ``delete_sandbox`` removes them, and with them the
        need for this.

        Raises:
            SandboxBusy: Another live process holds it.
        """
        self._call(self._core.cleanup)

    def run_command(
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
        return self._call(
            self._core.run_command,
            command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            timeout=timeout,
            tty=tty,
            columns=columns,
            rows=rows,
        )

    def start_command(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        tty: bool = False,
        columns: int = 80,
        rows: int = 24,
    ) -> AbstractContextManager[Process]:
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
        return self._portal.enter_as(
            Process,
            self._core.start_command,
            command,
            cwd=cwd,
            env=env,
            tty=tty,
            columns=columns,
            rows=rows,
        )

    def run_code(
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
        return self._call(
            self._core.run_code, code, language=language, context=context, timeout=timeout
        )

    def collect(self, patterns: Sequence[str], destination: Path | Shelf) -> Collected:
        """Copy files of the workspace into a content-addressed folder, running or not.

        Args:
            patterns: Paths relative to the workspace; ``*`` stays in a folder, ``**`` crosses.
            destination: The folder on the host; files land below ``sha256/`` in it. Or what keeps
                each file, in its own way.

        Raises:
            StateError: The destination cannot be written.
        """
        return self._call(self._core.collect, patterns, destination)

    def usage(self) -> Usage:
        """Return what it uses now; figures that cannot be had are ``None``, with the reason."""
        return self._call(self._core.usage)

    def run_experiment(self, config: Mapping[str, object]) -> ExperimentResult:
        """Run an experiment in this sandbox and record it.

        Args:
            config: For example ``{"model": ..., "prompt": ..., "parameters": {...}}``.

        Raises:
            ConfigError: The config is wrong; all faults at once, before anything is done.
            ModelError: The model cannot be called, as far as is known before.
            SandboxClosed: The sandbox was cleaned up or deleted.
            StateError: The journal cannot be written.
        """
        return self._call(self._core.run_experiment, config)

    def export_results(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write the results of every experiment run in this sandbox below a folder.

        Args:
            path: The folder, made if it is missing; each run becomes one folder in it.

        Returns:
            The runs' folders, oldest first. One that was exported before is left as it is.

        Raises:
            ExportError: Nothing was run, something else is in the way, or the disk is full.
        """
        return self._call(self._core.export_results, path)
