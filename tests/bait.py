"""What a host has that an attack can reach where there is no wall, open to every user of it."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import shared_memory
from pathlib import Path

import attrs

IPC_CREAT, IPC_RMID = 0o1000, 0

CANARY = "canary-5e1f"
"""The text of a file that nobody in a sandbox may read."""

KEY = "sk-canary-77c1"
"""A key in the environment of who starts a sandbox."""


@attrs.frozen
class Offers:
    """Sockets and shared memory of this process.

    Attributes:
        abstract: Name of an abstract socket.
        path: Of a socket in a folder.
        port: On the loopback address.
        segment: Number of a System V segment.
        memory: Name of a POSIX one.
        answered: The sockets that somebody connected to, one entry for each time.
    """

    abstract: str
    path: Path
    port: int
    segment: int
    memory: str
    answered: list[str]

    def words(self) -> list[str]:
        """Return the arguments of the attack."""
        return [self.abstract, str(self.path), str(self.port), str(self.segment), self.memory]


@contextmanager
def offered(folder: Path) -> Iterator[Offers]:
    """Listen on an abstract, a path and a loopback socket; share memory of both kinds."""
    libc = ctypes.CDLL(None, use_errno=True)
    segment = libc.shmget(0, 4096, IPC_CREAT | 0o666)
    if segment < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    memory = shared_memory.SharedMemory(create=True, size=4096)
    os.chmod(f"/dev/shm/{memory.name}", 0o666)
    path = folder / "socket"
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
    try:
        yield Offers(abstract, path, port, segment, memory.name, answered)
    finally:
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
        except OSError:  # shut down by its owner
            return
        with closing(connection):
            answered.append(repr(listener.getsockname()))
            connection.sendall(b"the host")


@attrs.frozen(kw_only=True)
class Bait:
    """All that the attacks of the table try to get.

    Attributes:
        home: A stand-in for somebody's home, open to all.
        secret: A file in it with ``CANARY``.
        program: A program that the attacker owns on the host.
        left_open: A folder that who starts the sandbox left open and inheritable, with
            ``host-file`` in it.
        descriptor: Of that folder.
        victim: A process of the attacker's uid, which has ``marker`` among its arguments.
        marker: See there.
        offers: Sockets and shared memory.
    """

    home: Path
    secret: Path
    program: Path
    left_open: Path
    descriptor: int
    victim: int
    marker: str
    offers: Offers


@contextmanager
def laid(folder: Path, uid: int) -> Iterator[Bait]:
    """Lay all of it out below a folder, for an attacker of this uid."""
    home = folder / "home"
    secret = home / ".ssh" / "id_ed25519"
    secret.parent.mkdir(parents=True)
    secret.write_text(CANARY)
    for path in (home, home / ".ssh", secret):
        path.chmod(0o777)
    program = folder / "sleep"
    program.write_bytes(Path("/usr/bin/sleep").read_bytes())
    program.chmod(0o755)
    os.chown(program, uid, -1)
    left_open = folder / "left-open"
    left_open.mkdir()
    (left_open / "host-file").touch()
    marker = f"victim-{os.getpid()}"
    with ExitStack() as stack:
        descriptor = os.open(left_open, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        os.set_inheritable(descriptor, True)
        waiting = [sys.executable, "-c", "input()", marker]
        words = ["/usr/bin/python3", *waiting[1:]] if uid != os.geteuid() else waiting
        victim = stack.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE, user=uid))
        stack.callback(victim.kill)
        offers = stack.enter_context(offered(folder))
        yield Bait(
            home=home,
            secret=secret,
            program=program,
            left_open=left_open,
            descriptor=descriptor,
            victim=victim.pid,
            marker=marker,
            offers=offers,
        )
