"""Attacks on what runs beside a sandbox: processes, sockets and memory of the host."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing import shared_memory
from pathlib import Path

import attrs
import pytest
from attacking import Inside, Outside
from host import command_line

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = pytest.mark.anyio

IPC_CREAT, IPC_RMID = 0o1000, 0


async def test_a21_tracing_and_signalling_a_host_process(inside: Inside, outside: Outside) -> None:
    """A process of the host is neither seen, traced, read nor signalled."""
    marker = "victim-c47d"
    with subprocess.Popen([sys.executable, "-c", "input()", marker], stdin=-1) as victim:
        free = outside("host_process", str(victim.pid), marker)
        assert str(victim.pid) in free.pop("seen").split()
        assert set(free.values()) == {"worked"}

        tried = await inside("host_process", str(victim.pid), marker)

        assert victim.poll() is None
        victim.communicate(b"\n")
    assert tried.pop("seen") == ""
    # At high the filter refuses the call itself, whatever process it names.
    assert set(tried.values()) <= {"ESRCH", "ENOENT", "EPERM"}


async def test_a21_signalling_everything(client: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """``kill -9 -1`` reaches what is inside, neither us, a neighbour, nor the agent."""
    async with await client.create_sandbox("neighbour") as neighbour:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as victim:
            async with sandbox.start_command(["sleep", "1000"]) as sleeper:
                await sandbox.run_code("import os; os.kill(-1, 9)")
                ended = await sleeper.wait()
            assert victim.poll() is None
            victim.communicate(b"\n")
        alive = [await each.run_command("echo alive") for each in (sandbox, neighbour)]
    assert ended.signal == 9
    assert [done.stdout for done in alive] == ["alive\n", "alive\n"]


async def test_processes_of_a_neighbour_are_not_seen(
    client: AsyncSandboxClient, sandbox: AsyncSandbox
) -> None:
    """``/proc`` shows a sandbox its own processes only."""
    async with (
        await client.create_sandbox("neighbour") as neighbour,
        neighbour.start_command(["sleep", "98765"]) as _,
    ):
        shown = await sandbox.run_command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "/opt/agent" in shown.stdout
        assert "98765" not in shown.stdout
        everywhere = [command_line(int(pid)) for pid in os.listdir("/proc") if pid.isdigit()]
        assert any("98765" in line for line in everywhere)


@attrs.frozen
class _Offers:
    """What this process offers to others on its host, open to every user."""

    abstract: str
    path: Path
    port: int
    segment: int
    memory: str
    answered: list[str]

    def words(self) -> list[str]:
        """Return the arguments of the attack."""
        return [self.abstract, str(self.path), str(self.port), str(self.segment), self.memory]


@pytest.fixture
def offers(tmp_path: Path) -> Iterator[_Offers]:
    """Listen on an abstract, a path and a loopback socket; share memory of both kinds."""
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(0, 4096, IPC_CREAT | 0o666)
    assert segment >= 0
    memory = shared_memory.SharedMemory(create=True, size=4096)
    os.chmod(f"/dev/shm/{memory.name}", 0o666)
    path = tmp_path / "socket"
    abstract = f"sandbox-sdk-test-{os.getpid()}"
    listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX), socket.socket()]
    addresses: tuple[str | tuple[str, int], ...] = (f"\0{abstract}", str(path), ("127.0.0.1", 0))
    for listener, address in zip(listeners, addresses, strict=True):
        listener.bind(address)
        listener.listen()
    path.chmod(0o666)
    answered: list[str] = []
    threads = [threading.Thread(target=_greet, args=(listener, answered)) for listener in listeners]
    for thread in threads:
        thread.start()
    port = listeners[2].getsockname()[1]
    yield _Offers(abstract, path, port, segment, memory.name, answered)
    for listener, thread in zip(listeners, threads, strict=True):
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()
    libc.shmctl(segment, IPC_RMID, None)
    memory.close()
    memory.unlink()


def _greet(listener: socket.socket, answered: list[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # shut down by the fixture
            return
        with closing(connection):
            answered.append(repr(listener.getsockname()))
            connection.sendall(b"the host")


async def test_a24_sockets_and_memory_of_the_host(
    inside: Inside, outside: Outside, offers: _Offers
) -> None:
    """Abstract, path and loopback sockets and shared memory of the host are out of reach."""
    free = outside("host_sockets", *offers.words())
    assert set(free.values()) == {"worked"}
    assert len(offers.answered) == 3

    tried = await inside("host_sockets", *offers.words())

    assert {tried["abstract socket"], tried["loopback"]} <= {"ECONNREFUSED", "EACCES"}
    assert tried["path socket"] == tried["POSIX memory"] == "ENOENT"
    assert tried["System V memory"] in {"EINVAL", "EIDRM", "EPERM"}
    assert len(offers.answered) == 3
