"""See, trace, read, signal and take from the process whose number is given."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from tried import attempt, call, check, libc, record, tell

PTRACE_ATTACH, PTRACE_DETACH, PIDFD_GETFD = 16, 17, 438
victim, marker = int(sys.argv[1]), sys.argv[2]


def trace() -> None:
    """Attach to the process as its tracer, and let it go."""
    check(libc.ptrace(PTRACE_ATTACH, victim, None, None))
    os.waitpid(victim, 0x40000000)  # __WALL
    check(libc.ptrace(PTRACE_DETACH, victim, None, None))


def read_memory() -> None:
    """Read a byte of the process's memory."""
    with open(f"/proc/{victim}/maps") as lines:
        address = int(lines.readline().split("-")[0], 16)
    byte = ctypes.create_string_buffer(1)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(byte), 1)
    remote = (ctypes.c_size_t * 2)(address, 1)
    check(libc.process_vm_readv(victim, local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), 0))


def open_memory() -> None:
    """Open the process's memory as a file, and read a byte."""
    with open(f"/proc/{victim}/maps") as lines:
        address = int(lines.readline().split("-")[0], 16)
    descriptor = os.open(f"/proc/{victim}/mem", os.O_RDWR)
    try:
        os.pread(descriptor, 1, address)
    finally:
        os.close(descriptor)


def take_descriptor() -> None:
    """Duplicate the process's standard input."""
    pidfd = os.pidfd_open(victim)
    try:
        os.close(call(PIDFD_GETFD, pidfd, 0, 0))
    finally:
        os.close(pidfd)


def signal_by_descriptor() -> None:
    """Signal the process by a descriptor of it."""
    pidfd = os.pidfd_open(victim)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    finally:
        os.close(pidfd)


def seen() -> list[str]:
    """Return the processes that have the marker among their arguments, this one left out."""
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
    return [pid for pid in pids if marker in arguments(pid)]


def arguments(pid: str) -> str:
    """Return a process's arguments, or nothing if it ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


record("seen", " ".join(seen()))
attempt("trace", trace)
attempt("read memory", read_memory)
attempt("memory file", open_memory)
attempt("take descriptor", take_descriptor)
attempt("signal", lambda: os.kill(victim, signal.SIGCONT))
attempt("signal by descriptor", signal_by_descriptor)
tell()
