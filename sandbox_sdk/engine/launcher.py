"""The launcher process as the client holds it."""

from __future__ import annotations

import array
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from sandbox_sdk.agent.boot import memory_file
from sandbox_sdk.errors import IsolationError, LaunchError, SandboxError, TemplateError
from sandbox_sdk.isolation import remedies
from sandbox_sdk.isolation.runtimes.base import RUN, Boot
from sandbox_sdk.isolation.walls.cgroups import Counters
from sandbox_sdk.values import Wall

STAGE = f"{RUN}/stage"
"""Where the launcher of a root client shows folders to the uids it drops to."""

_LARGEST = 64 * 1024
_MOST_DESCRIPTORS = 2


@attrs.define(eq=False)
class Launched:
    """One sandbox that the launcher was asked for.

    Attributes:
        name: What the launcher knows it by.
        pid: Its PID 1 as the host numbers it; 0 before it started.
        pidfd: Of PID 1; -1 before it started and after ``release``.
        uid: The host uid it was dropped to; 0 where none was needed.
        workspace: Of its workspace in memory; -1 where that is a host folder.
        ended: Set when nothing of it is left on the host.
        status: Exit code of the runtime's program, or minus the signal, once it ended.
        stderr: What the runtime's program said.
        counted: What the kernel counted against its limits, final once it ended.
    """

    name: str
    pid: int = 0
    pidfd: int = -1
    uid: int = 0
    workspace: int = -1
    changed: anyio.Event = attrs.field(factory=anyio.Event)
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    status: int | None = None
    stderr: str = ""
    counted: Counters = attrs.field(factory=Counters)

    async def wait_started(self) -> None:
        """Wait until PID 1 runs.

        Raises:
            IsolationError: This host lacks what the runtime needs; the fix is in the message.
            LaunchError: The runtime's program ended before that.
        """
        await self.changed.wait()
        if not self.ended.is_set():
            return
        raise start_failure(f"the sandbox did not start: {self.stderr or 'no reason was given'}")

    def kill(self) -> None:
        """Kill PID 1 and with it everything inside; nothing happens if it is gone."""
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def release(self) -> None:
        """Give the descriptors back."""
        for descriptor in (self.pidfd, self.workspace):
            if descriptor >= 0:
                os.close(descriptor)
        self.pidfd = self.workspace = -1


class Launcher:
    """Starts and holds the launcher process.

    Attributes:
        alive: Whether it runs.
        launches: How many sandboxes it was asked for.
    """

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control.fileno(), self._read)
        self._launched: dict[str, Launched] = {}
        self._ready = anyio.Event()
        self._refusal: SandboxError | None = None
        self._sending = anyio.Lock(
            fast_acquire=True
        )  # one task at a time may wait for room in the socket
        self.alive = True
        self.launches = 0
        self._launching = 0

    @property
    def idle(self) -> bool:
        """Whether it holds no sandbox, and is about to get none."""
        return not self._launched and not self._launching

    def expect(self) -> Launcher:
        """Note that one more sandbox will be asked for."""
        self.launches += 1
        self._launching += 1
        return self

    @classmethod
    async def start(cls, agent: Path, boot: Boot) -> Launcher:
        """Start a launcher.

        Args:
            agent: The agent's folder.
            boot: What it is to do, as its runtime says.

        Raises:
            IsolationError: This host does not let a zygote's sandboxes be contained.
            TemplateError: A module could not be imported ahead.
            LaunchError: It did not start; the last of its words is in the message.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [theirs.fileno()]
        stage = STAGE if os.geteuid() == 0 else ""
        if boot.plan is not None:
            passed.append(memory_file(json.dumps(boot.plan)))
        python = getattr(sys, "_base_executable", sys.executable)
        words = [*map(str, passed)] if boot.plan is not None else [str(passed[0]), stage]
        argv = [python, "-I", "-S", str(agent), boot.task, *words]

        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                argv,
                env={},
                cwd="/",
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )

        try:
            process = await anyio.to_thread.run_sync(spawn)
        except OSError as error:
            ours.close()
            raise LaunchError(f"the launcher could not be started: {error}") from error
        finally:
            theirs.close()
            for descriptor in passed[1:]:
                os.close(descriptor)
        ours.setblocking(False)
        launcher = cls(process, ours)
        try:
            await launcher._ready.wait()
        except BaseException:
            await launcher.aclose()
            raise
        if not launcher.alive:
            await anyio.to_thread.run_sync(process.wait)
            said = await launcher._last_words()
            await launcher.aclose()
            raise launcher._refusal or start_failure(f"the launcher ended at once: {said}")
        return launcher

    async def launch(
        self, request: Mapping[str, object], channels: Sequence[socket.socket]
    ) -> Launched:
        """Ask for a sandbox; its ends of the channels are handed over.

        Raises:
            LaunchError: The launcher is gone.
        """
        launched = Launched(str(request["id"]))
        self._launched[launched.name] = launched
        self._launching -= 1
        rights = array.array("i", [channel.fileno() for channel in channels])
        await self._send(
            {"do": "launch", **request}, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        )
        return launched

    async def kill(self, launched: Launched) -> None:
        """Kill a sandbox, also one that has no PID 1 yet."""
        launched.kill()
        if launched.pidfd < 0 and not launched.ended.is_set():
            try:
                await self._send({"do": "kill", "id": launched.name}, [])
            except LaunchError:
                return  # the launcher is gone, and took its sandboxes along

    async def aclose(self) -> None:
        """End the launcher, which takes its sandboxes along, and wait for it. Idempotent."""
        if self._control.fileno() >= 0:
            self._control.shutdown(socket.SHUT_RDWR)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._process.wait)
            self._close_control()
            if self._process.stderr is not None:
                self._process.stderr.close()

    async def _send(
        self, request: Mapping[str, object], ancillary: list[tuple[int, int, array.array[int]]]
    ) -> None:
        data = json.dumps(request).encode()
        async with self._sending:
            while self.alive:
                try:
                    self._control.sendmsg([data], ancillary)
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
                except OSError:
                    break
                else:
                    return
        raise LaunchError(f"the launcher is gone: {await self._last_words()}")

    def _read(self) -> None:
        """Take one thing that the launcher says, from the event loop itself, until it ends."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(
                _LARGEST, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS)
            )
        except BlockingIOError:
            return
        except OSError:  # reset by its death
            data, ancillary = b"", []
        if not data:
            self._end()
            return
        rights = array.array("i")
        for _, _, payload in ancillary:
            rights.frombytes(payload)
        self._take(json.loads(data), list(rights))

    def _end(self) -> None:
        """Take note that it is gone, and its sandboxes with it."""
        if self.alive:
            self._loop.remove_reader(self._control.fileno())
        self.alive = False
        self._ready.set()
        for launched in self._launched.values():
            launched.stderr = launched.stderr or "the launcher ended"
            launched.ended.set()
            launched.changed.set()

    def _take(self, said: Mapping[str, Any], descriptors: list[int]) -> None:
        if said["say"] == "ready":
            self._ready.set()
            return
        if said["say"] == "refused":
            self._refusal = _refusal(said["what"], said["why"])
            return
        launched = self._launched[said["id"]]
        if said["say"] == "started":
            launched.pid, launched.uid = said["pid"], said["uid"]
            launched.pidfd = descriptors[0]
            if len(descriptors) > 1:
                launched.workspace = descriptors[1]
        else:
            launched.status, launched.stderr = said["status"], said["stderr"]
            launched.counted = Counters(**said["counted"])
            launched.ended.set()
            del self._launched[launched.name]
        launched.changed.set()

    async def _last_words(self) -> str:
        """What it wrote before it ended: a traceback's last line."""
        stderr = self._process.stderr
        if self._process.poll() is None or stderr is None or stderr.closed:
            return "it no longer answers"
        text = await anyio.to_thread.run_sync(stderr.read)
        lines = text.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self._process.returncode}"

    def _close_control(self) -> None:
        if self._control.fileno() >= 0:
            self._end()
            self._control.close()


def start_failure(said: str) -> SandboxError:
    """Return the error for a sandbox or launcher that did not start.

    Args:
        said: What happened, with the last words of what did not start.
    """
    if (cause := remedies.explain(said)) is None:
        return LaunchError(f"{said}; run: sandbox-sdk doctor")
    wall = Wall(name=cause.wall, in_force=False, detail=f"{said}: {cause.reason}", fix=cause.fix)
    return IsolationError(f"{cause.wall}: {said}: {cause}", walls=(wall,))


def _refusal(what: str, why: str) -> SandboxError:
    """Why a zygote did not come to serve."""
    if what == "preload":
        return TemplateError(
            f"a module could not be imported ahead: {why}; take it out of preload, or see that "
            "the template has it"
        )
    said = f"the zygote runtime does not work here: {why}"
    failure = start_failure(said)
    if isinstance(failure, IsolationError):
        return failure
    wall = Wall(name="zygote", in_force=False, detail=said, fix="run: sandbox-sdk doctor")
    return IsolationError(said, walls=(wall,))
