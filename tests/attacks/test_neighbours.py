"""Attacks on what runs beside a sandbox: processes, sockets and memory of the host."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
from attacking import Inside, Kind, Outside
from bait import Offers, offered
from host import command_line, soon

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind

pytestmark = pytest.mark.anyio

VICTIM = "victim-c47d"


async def test_a21_tracing_and_signalling_a_host_process(inside: Inside, outside: Outside) -> None:
    """A process of the host is neither traced, read nor signalled."""
    with _victim() as victim:
        free = outside("host_process", str(victim.pid), VICTIM)
        assert str(victim.pid) in free.pop("seen").split()
        assert set(free.values()) == {"worked"}

        tried = await inside("host_process", str(victim.pid), VICTIM)

        assert victim.poll() is None
    del tried["seen"]
    # At high the filter refuses the call itself, whatever process it names.
    assert set(tried.values()) <= {"ESRCH", "ENOENT", "EPERM", "EACCES"}


async def test_a21_seeing_a_host_process(inside: Inside, outside: Outside) -> None:
    """A process of the host is not in ``/proc``."""
    with _victim() as victim:
        assert str(victim.pid) in outside("host_process", str(victim.pid), VICTIM)["seen"].split()
        tried = await inside("host_process", str(victim.pid), VICTIM)
    assert tried["seen"] == ""


@contextmanager
def _victim() -> Iterator[subprocess.Popen[bytes]]:
    """Have a process of our own uid that has ``VICTIM`` among its arguments."""
    with subprocess.Popen([sys.executable, "-c", "input()", VICTIM], stdin=-1) as victim:
        yield victim
        victim.communicate(b"\n")


async def test_a21_signalling_everything(client: AsyncSandboxClient, sandbox: AsyncSandbox) -> None:
    """``kill -9 -1`` reaches what is inside, and neither us nor a neighbour."""
    async with await client.create_sandbox("neighbour") as neighbour:
        with _victim() as victim:
            sleep = ["sh", "-c", "echo begun; exec sleep 1000"]
            async with sandbox.start_command(sleep) as sleeper:
                assert await anext(sleeper.stdout) == b"begun\n"
                await sandbox.run_code("import os; os.kill(-1, 9)")
                ended = await sleeper.wait()
            assert victim.poll() is None
        assert (await neighbour.run_command("echo alive")).stdout == "alive\n"
    assert ended.signal == 9 or ended.kind is EndKind.SANDBOX_DIED


async def test_processes_of_a_neighbour_are_not_seen(
    client: AsyncSandboxClient, sandbox: AsyncSandbox
) -> None:
    """``/proc`` shows a sandbox its own processes only."""
    async with (
        await client.create_sandbox("neighbour") as neighbour,
        neighbour.start_command(["sleep", "98765"]) as _,
    ):
        shown = await sandbox.run_command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "/agent" in shown.stdout
        assert "98765" not in shown.stdout

        def everywhere() -> list[str]:
            return [command_line(int(pid)) for pid in os.listdir("/proc") if pid.isdigit()]

        assert await soon(lambda: any("98765" in line for line in everywhere()))


@pytest.fixture
def offers(tmp_path: Path) -> Iterator[Offers]:
    """Return what this process offers to others on its host."""
    with offered(tmp_path) as offers:
        yield offers


async def test_a24_sockets_and_memory_of_the_host(
    inside: Inside, outside: Outside, offers: Offers, kind: Kind
) -> None:
    """Abstract, path and loopback sockets and shared memory of the host are out of reach."""
    free = outside("host_sockets", *offers.words())
    assert set(free.values()) == {"worked"}
    assert len(offers.answered) == 3

    tried = await inside("host_sockets", *offers.words())

    sockets = {tried[name] for name in ("abstract socket", "loopback")}
    assert sockets <= {"ECONNREFUSED", "EACCES", "EAFNOSUPPORT"}
    assert tried["path socket"] in {"ENOENT", "EAFNOSUPPORT"}
    assert tried["POSIX memory"] in kind.hidden
    assert tried["System V memory"] in {"EINVAL", "EIDRM", "EPERM"}
    assert len(offers.answered) == 3


async def test_a25_networks_of_the_host(inside: Inside, outside: Outside) -> None:
    """Nothing is sent to any address: the host's own, its neighbours', the cloud's metadata."""
    with _listening(socket.AF_INET, "0.0.0.0") as four, _listening(socket.AF_INET6, "::") as six:
        own = [f"{_own_address()},{four.port}", f"127.0.0.1,{four.port}", f"::1,{six.port}"]
        far = ["169.254.169.254,80", "192.0.2.1,53", "fe80::1,80", "255.255.255.255,9"]
        free = outside("networks", *own)
        assert set(free.values()) == {"worked"}
        assert four.datagrams() >= 2
        assert six.datagrams() >= 1

        tried = await inside("networks", *own, *far)

        assert four.datagrams() == six.datagrams() == 0
    refused = {
        "ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH", "EACCES", "EINVAL",
        "EAFNOSUPPORT",
    }  # fmt: skip
    assert {how for name, how in tried.items() if name.startswith("tcp ")} <= refused
    # What is sent to an own address is lost there; any other has no way to it.
    sent = {name for name, how in tried.items() if name.startswith("udp ") and how == "worked"}
    assert sent <= {"udp 127.0.0.1", "udp ::1"}


@attrs.frozen
class _Listener:
    """A TCP and a UDP socket on one port of all addresses."""

    stream: socket.socket
    datagram: socket.socket

    @property
    def port(self) -> int:
        port: int = self.stream.getsockname()[1]
        return port

    def datagrams(self) -> int:
        """Return how many datagrams came, and forget them."""
        count = 0
        while select.select([self.datagram], [], [], 0)[0]:
            self.datagram.recv(100)
            count += 1
        return count


@contextmanager
def _listening(family: socket.AddressFamily, address: str) -> Iterator[_Listener]:
    with socket.socket(family) as stream, socket.socket(family, socket.SOCK_DGRAM) as datagram:
        if family == socket.AF_INET6:
            for each in (stream, datagram):
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        stream.bind((address, 0))
        stream.listen()
        datagram.bind((address, stream.getsockname()[1]))
        yield _Listener(stream, datagram)


def _own_address() -> str:
    """Return an address of this host that others reach it by; a host without has loopback only."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        try:
            datagram.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.2"
        address: str = datagram.getsockname()[0]
        return address


LISTEN = """
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("\\0between-sandboxes")
    listener.listen()
    print("listening", flush=True)
    sys.stdin.read()
"""
CONNECT = """
import socket
socket.socket(socket.AF_UNIX).connect("\\0between-sandboxes")
"""


async def test_sockets_of_another_sandbox(
    client: AsyncSandboxClient, sandbox: AsyncSandbox
) -> None:
    """An abstract socket is seen in the sandbox that made it only."""
    async with (
        await client.create_sandbox("neighbour") as neighbour,
        neighbour.start_command(["python", "-uc", LISTEN]) as listener,
    ):
        assert (await anext(listener.stdout, b"")).startswith(b"listening")
        connected = [
            await each.run_command(["python", "-c", CONNECT]) for each in (neighbour, sandbox)
        ]
    assert [done.ok for done in connected] == [True, False]
    assert "ConnectionRefusedError" in connected[1].stderr


async def test_terminals_of_another_sandbox(
    client: AsyncSandboxClient, sandbox: AsyncSandbox
) -> None:
    """The terminal of a command is out of reach of other sandboxes."""
    async with _neighbours_terminal(client) as (_, name):
        opened = await sandbox.run_command(f"exec 3<>{name}")
    assert not opened.ok


async def test_terminals_of_a_neighbour_are_not_seen(
    client: AsyncSandboxClient, sandbox: AsyncSandbox
) -> None:
    """A terminal is seen in the sandbox that made it only."""
    async with _neighbours_terminal(client) as (neighbour, name):
        seen = [await each.run_command("ls /dev/pts") for each in (neighbour, sandbox)]
    assert [os.path.basename(name) in done.stdout.split() for done in seen] == [True, False]


@asynccontextmanager
async def _neighbours_terminal(
    client: AsyncSandboxClient,
) -> AsyncGenerator[tuple[AsyncSandbox, str], None]:
    """Have a second sandbox with a command on a terminal, whose name is the second of the two."""
    async with (
        await client.create_sandbox("neighbour") as neighbour,
        neighbour.start_command(["sh", "-c", "tty; cat"], tty=True) as terminal,
    ):
        name = (await anext(terminal.stdout, b"")).decode().strip()
        assert name.startswith("/dev/pts/")
        yield neighbour, name
