"""A ``Workplace`` and a ``ModelHost`` without walls, for tests of the experiments layer.

Both run plain subprocesses: commands in a temporary folder, models in another. They isolate
nothing and say so; the real stack is tested end to end elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from sandbox_sdk.errors import FileError, SandboxEnded
from sandbox_sdk.values import (
    Artifact,
    CodeError,
    CodeResult,
    Collected,
    CommandResult,
    Ended,
    EndKind,
    FileInfo,
    Isolation,
    Limit,
    MimeBundle,
    Mount,
    Resources,
    SandboxInfo,
    SandboxSpec,
    SandboxState,
    Shelf,
    Usage,
    new_id,
)

_RUNNER = """
import ast, json, sys, traceback
code = sys.stdin.read()
out = open(int(sys.argv[1]), "w")
tree = ast.parse(code)
last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
names = {"__name__": "__main__"}
try:
    exec(compile(tree, "<code>", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names) if last else None
    json.dump({"value": None if value is None else repr(value)}, out)
except Exception as error:
    json.dump({"error": [type(error).__name__, str(error), traceback.format_exc()]}, out)
    sys.exit(1)
"""


@contextlib.contextmanager
def _kernel_errors(path: str) -> Generator[None]:
    """Tell what the kernel refuses as the real files do."""
    try:
        yield
    except OSError as error:
        said = f"{path}: {error.strerror}"
        raise FileError(said, path=path, errno=error.errno) from None


class PlainFiles:
    """Reads and writes under the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes."""
        with _kernel_errors(path):
            data = await anyio.Path(self._folder / path).read_bytes()
        if max_bytes is not None and len(data) > max_bytes:
            raise FileError(f"{path} is too large", path=path, errno=errno.EFBIG)
        return data

    async def write(self, path: str, data: bytes | str) -> None:
        """Write a file."""
        target = anyio.Path(self._folder / path)
        with _kernel_errors(path):
            await target.parent.mkdir(parents=True, exist_ok=True)
            await target.write_bytes(data.encode() if isinstance(data, str) else data)

    def _list(self, path: str) -> list[FileInfo]:
        return [
            FileInfo(
                path=f"/workspace/{entry.name}",
                kind="symlink" if entry.is_symlink() else "directory" if entry.is_dir() else "file",
                size_bytes=entry.lstat().st_size,
                target=str(entry.readlink()) if entry.is_symlink() else None,
            )
            for entry in sorted((self._folder / path).iterdir())
        ]

    async def list(self, path: str = ".") -> list[FileInfo]:
        """Return what is in a folder."""
        with _kernel_errors(path):
            return await anyio.to_thread.run_sync(self._list, path)


class PlainWorkplace:
    """Runs subprocesses in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = new_id("sb")
        self.files = PlainFiles(folder)
        self.limits: tuple[Limit, ...] = ()
        self.isolation: Isolation | None = None
        self.waived: tuple[str, ...] = ()
        self.dead = False
        self.commands: list[str] = []

    @property
    def info(self) -> SandboxInfo:
        """A record."""
        return SandboxInfo(id=self.id, spec=SandboxSpec(name="plain"), state=SandboxState.RUNNING)

    async def setup(self) -> None:
        """Make the folder."""
        await anyio.Path(self.folder).mkdir(parents=True, exist_ok=True)
        self.isolation = Isolation(level="unsafe", runtime="subprocess", waived=self.waived)
        self.limits = (Limit(name="timeout", value=None, held_by="host-clock"),)

    async def run_command(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | str | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """Run a command to its end."""
        argv = ["/bin/bash", "-c", command] if isinstance(command, str) else list(command)
        self.commands.append(argv[-1])
        data = stdin.encode() if isinstance(stdin, str) else stdin
        ended, out, err, took = await self._run(argv, data or b"", timeout, env=env)
        return CommandResult(ended=ended, stdout_bytes=out, stderr_bytes=err, duration=took)

    async def run_code(
        self,
        code: str,
        *,
        language: str = "python",
        context: str | None = None,
        timeout: float | None = None,
    ) -> CodeResult:
        """Run code in a fresh interpreter."""
        self.commands.append(code)
        reading, writing = os.pipe()
        try:
            argv = [sys.executable, "-c", _RUNNER, str(writing)]
            ended, out, err, took = await self._run(
                argv, code.encode(), timeout, pass_fds=(writing,)
            )
            os.close(writing)
            writing = -1
            told = json.loads(await anyio.to_thread.run_sync(os.read, reading, 1 << 16) or "{}")
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)
        value, error = told.get("value"), told.get("error")
        return CodeResult(
            ended=ended,
            stdout=out.decode("utf-8", "replace"),
            stderr=err.decode("utf-8", "replace"),
            results=()
            if value is None
            else (MimeBundle(data={"text/plain": value}, is_value=True),),
            error=CodeError(name=error[0], message=error[1], traceback=error[2]) if error else None,
            duration=took,
        )

    async def collect(self, patterns: Sequence[str], destination: Path | Shelf) -> Collected:
        """Copy files by digest."""
        self._require_alive()
        return await anyio.to_thread.run_sync(self._collect, patterns, destination)

    def _collect(self, patterns: Sequence[str], destination: Path | Shelf) -> Collected:
        found: list[Artifact] = []
        for pattern in patterns:
            for path in sorted(self.folder.glob(pattern)):
                data = path.read_bytes()
                sha256 = hashlib.sha256(data).hexdigest()
                if isinstance(destination, Path):
                    target = destination / "sha256" / sha256[:2] / sha256[2:]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                else:
                    assert destination.keep([data]) == (sha256, len(data))
                name = str(path.relative_to(self.folder))
                found.append(Artifact(path=name, size_bytes=len(data), sha256=sha256))
        return Collected(artifacts=tuple(found), skipped={})

    async def usage(self) -> Usage:
        """Return made-up counters that grow."""
        self._require_alive()
        return Usage(sandbox_id=self.id, cpu_seconds=time.process_time(), source="proc-sum")

    def _require_alive(self) -> None:
        if self.dead:
            ended = Ended(kind=EndKind.SANDBOX_DIED)
            raise SandboxEnded("the sandbox died", sandbox_id=self.id, ended=ended)

    async def _run(
        self, argv: Sequence[str], stdin: bytes, timeout: float | None, **kwargs: Any
    ) -> tuple[Ended, bytes, bytes, float]:
        self._require_alive()
        started = time.monotonic()
        out, err = bytearray(), bytearray()

        async def drain(stream: anyio.abc.ByteReceiveStream | None, into: bytearray) -> None:
            if stream is not None:
                async for chunk in stream:
                    into += chunk

        process = await anyio.open_process(
            argv, stdin=PIPE, cwd=self.folder, start_new_session=True, **kwargs
        )
        timed_out = True
        try:
            with anyio.move_on_after(timeout):
                async with anyio.create_task_group() as group:
                    group.start_soon(drain, process.stdout, out)
                    group.start_soon(drain, process.stderr, err)
                    if process.stdin is not None:
                        # A program may end without reading what it is given.
                        with contextlib.suppress(anyio.BrokenResourceError):
                            await process.stdin.send(stdin)
                        await process.stdin.aclose()
                await process.wait()
                timed_out = False
        finally:
            with anyio.CancelScope(shield=True):
                if timed_out:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                await process.aclose()
        self._require_alive()
        took = time.monotonic() - started
        if timed_out:
            ended = Ended(kind=EndKind.TIMEOUT, limit="timeout", limit_value=timeout)
        elif process.returncode == 0:
            ended = Ended(kind=EndKind.OK, exit_code=0)
        elif (process.returncode or 0) < 0:
            ended = Ended(kind=EndKind.SIGNAL, signal=-(process.returncode or 0))
        else:
            ended = Ended(kind=EndKind.NONZERO, exit_code=process.returncode)
        return ended, bytes(out), bytes(err), took


class PlainProcess:
    """A subprocess behind the ``Process`` protocol."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """Standard output as it comes."""
        return _chunks(self._process.stdout)

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """Standard error as it comes."""
        return _chunks(self._process.stderr)

    async def write(self, data: bytes | str) -> None:
        """Write to standard input."""
        assert self._process.stdin is not None
        await self._process.stdin.send(data.encode() if isinstance(data, str) else data)

    async def close_stdin(self) -> None:
        """End standard input."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(signal.Signals(number))

    async def wait(self) -> Ended:
        """Wait for the end."""
        code = await self._process.wait()
        return Ended(kind=EndKind.NONZERO if code else EndKind.OK, exit_code=code)


async def _chunks(stream: anyio.abc.ByteReceiveStream | None) -> AsyncIterator[bytes]:
    assert stream is not None
    async for chunk in stream:
        yield chunk


class PlainHost:
    """Starts a model's program as a plain subprocess, its mounts by symbolic links."""

    def __init__(self) -> None:
        self.started: list[PlainProcess] = []

    @asynccontextmanager
    async def start_program(
        self,
        name: str,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount],
        files: Mapping[str, bytes],
        resources: Resources,
    ) -> AsyncGenerator[PlainProcess]:
        """Run the command until the context ends."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for path, data in files.items():
                (root / path).write_bytes(data)
            for mount in mounts:
                link = root / mount.target.lstrip("/")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(mount.source)
            # What is absolute inside is under the folder here.
            argv = [f"{root}{word}" if word.startswith("/") else word for word in command]
            argv[0] = sys.executable if argv[0] == "python3" else argv[0]
            # What it leaves in its temporary folder goes with the rest.
            env = {**os.environ, "TMPDIR": folder}
            process = await anyio.open_process(argv, stdin=PIPE, stdout=PIPE, cwd=root, env=env)
            try:
                started = PlainProcess(process)
                self.started.append(started)
                yield started
            finally:
                with anyio.CancelScope(shield=True):
                    if process.returncode is None:
                        process.kill()
                    await process.aclose()
