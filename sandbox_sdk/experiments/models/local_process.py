"""One local model's process: started in a sandbox, asked one call at a time."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import ModelError, SandboxError
from sandbox_sdk.values import GIB, MIB, ModelHost, Mount, Process, Resources

CONTEXT_TOKENS = 4096
"""How much of a conversation a local model reads, its answer included."""

_MODEL = "/mnt/model/model.gguf"
_LIBRARY = "/mnt/model/lib"
_WORKER = "local_worker.py"
_LONGEST_LINE = 16 * MIB
_CLOSE_SECONDS = 10.0
_BROKEN = (SandboxError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)


@attrs.frozen
class _Running:
    process: Process
    lines: AsyncIterator[bytes]
    stack: AsyncExitStack


class LocalProcess:
    """Keeps a model loaded and asks it. Whatever it answers is not trusted.

    Args:
        host: Starts the program in a sandbox.
        path: The model's file.
    """

    def __init__(self, host: ModelHost, path: Path) -> None:
        self._host = host
        self._path = path
        self._running: _Running | None = None
        self._calls = 0
        self._closed = False
        self._asking = anyio.Lock()  # held during a call: answers come in the order of calls

    # Any: JSON both ways.
    async def call(self, body: dict[str, Any]) -> Any:
        """Return the model's answer to one call, loading the model first if need be.

        A call that is cancelled or fails ends the process: its answer would be taken for the
        next call's.

        Raises:
            ModelError: The model could not be loaded, or its process ended.
        """
        async with self._asking:
            if self._closed:
                raise self._error("was closed with its client")
            running = self._running or await self._start()
            self._calls += 1
            line = json.dumps({"id": self._calls, "body": body}).encode() + b"\n"
            complete = False
            try:
                await running.process.write(line)
                answer = await self._read(running)
                complete = answer.get("id") == self._calls
            except ModelError:
                raise
            except _BROKEN as error:
                # The sandbox it tells of is the model's own, not the experiment's.
                raise self._error(f"ended: {error}", retryable=True) from error
            finally:
                if not complete:
                    await self._stop()
            if not complete:
                raise self._error("answered another call than it was asked; it was ended")
            return answer

    async def aclose(self) -> None:
        """End the process, if it runs. A call that waits for it fails."""
        # Not under the lock: a client that closes does not wait for a long answer.
        self._closed = True
        await self._stop()

    async def _start(self) -> _Running:
        stack = AsyncExitStack()
        started = False
        try:
            program = await anyio.to_thread.run_sync(_Program.of, self._path)
            process = await stack.enter_async_context(
                self._host.start_program(
                    f"model {self._path.name}"[:200],
                    program.command,
                    mounts=program.mounts,
                    files=program.files,
                    resources=program.resources,
                )
            )
            running = _Running(process, _lines(process.stdout), stack)
            match await self._read(running):
                case {"ready": True} if not self._closed:
                    started = True
                case {"failed": reason}:
                    raise self._error(f"could not be loaded: {str(reason)[:1000]}")
                case _:
                    raise self._error("did not say that it is ready; it was ended")
        except ModelError:
            raise
        except _BROKEN as error:
            raise self._error(f"could not be started in a sandbox: {error}") from error
        finally:
            if not started:
                await _close(stack)
        self._running = running
        return running

    async def _read(self, running: _Running) -> dict[str, Any]:
        try:
            async for line in running.lines:
                answer = json.loads(line)
                if isinstance(answer, dict):
                    return cast("dict[str, Any]", answer)
                break
        except (ValueError, RecursionError):
            raise self._error("wrote something that is no answer; it was ended") from None
        with anyio.move_on_after(_CLOSE_SECONDS):
            ended = await running.process.wait()
            raise self._error(f"ended before it answered: {ended}", retryable=True)
        raise self._error("closed its output without an answer; it was ended", retryable=True)

    async def _stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await _close(running.stack)

    def _error(self, what: str, *, retryable: bool = False) -> ModelError:
        return ModelError(f"the local model {self._path.name} {what}", retryable=retryable)


async def _close(stack: AsyncExitStack) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
        await stack.aclose()


async def _lines(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield whole lines of bounded length."""
    rest = bytearray()
    async for chunk in stream:
        rest += chunk
        while (end := rest.find(b"\n")) >= 0:
            yield bytes(rest[:end])
            del rest[: end + 1]
        if len(rest) > _LONGEST_LINE:
            raise ValueError("a line without end")


@attrs.frozen(kw_only=True)
class _Program:
    command: tuple[str, ...]
    mounts: tuple[Mount, ...]
    files: Mapping[str, bytes]
    resources: Resources

    @classmethod
    def of(cls, path: Path) -> _Program:
        """Return what to start for a model's file; reads from the disk."""
        spec = importlib.util.find_spec("xllamacpp")
        if spec is None or spec.origin is None:
            raise ModelError('llama.cpp is not installed; run: pip install "sandbox-sdk[local]"')
        library = Path(spec.origin).resolve().parent
        # With every core busy, llama.cpp's waiting threads slow it down sixteenfold.
        threads = max(1, (os.cpu_count() or 1) - 1)
        # The file is mapped, and counts as memory once read; the conversation comes on top.
        memory = GIB + 2 * path.stat().st_size
        return cls(
            command=(
                *("python3", "-I", _WORKER, _MODEL, _LIBRARY),
                *(str(threads), str(CONTEXT_TOKENS)),
            ),
            mounts=(
                Mount(source=path, target=_MODEL),
                Mount(source=library, target=f"{_LIBRARY}/xllamacpp"),
            ),
            files={_WORKER: files("sandbox_sdk.experiments.models").joinpath(_WORKER).read_bytes()},
            resources=Resources(memory_bytes=memory, cpu=float(threads), pids=64),
        )
