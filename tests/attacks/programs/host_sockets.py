"""Reach what the host offers to its own processes: sockets, and shared memory."""

from __future__ import annotations

import ctypes
import socket
import sys

from tried import attempt, check, libc, open_and_close, tell

abstract, path, port, segment, shared = sys.argv[1:]


def connect(family: socket.AddressFamily, address: str | tuple[str, int]) -> None:
    """Connect, and read the greeting that says who answered."""
    with socket.socket(family) as connection:
        connection.settimeout(2)
        connection.connect(address)
        if connection.recv(100) != b"the host":
            raise ConnectionRefusedError(111, "somebody else")


def attach() -> None:
    """Attach the host's System V segment."""
    libc.shmat.restype = ctypes.c_long
    check(libc.shmat(int(segment), None, 0o10000))  # SHM_RDONLY


attempt("abstract socket", lambda: connect(socket.AF_UNIX, f"\0{abstract}"))
attempt("path socket", lambda: connect(socket.AF_UNIX, path))
attempt("loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", int(port))))
attempt("System V memory", attach)
attempt("POSIX memory", lambda: open_and_close(f"/dev/shm/{shared}", 0))
tell()
