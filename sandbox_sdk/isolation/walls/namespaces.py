"""Namespaces: made, entered, named, and told apart."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.syscalls import NUMBERS

_CLONE3 = 435  # one number on every architecture since the unified table
_CLONE_PIDFD, _CLONE_INTO_CGROUP = 0x1000, 0x200000000
_CLONE = NUMBERS[kernel.MACHINE]["clone"] or 0
# How engines of containers hide clone3, whose flags their filters cannot see.
_HIDDEN = (errno.ENOSYS, errno.EPERM)
_SIOCSIFFLAGS, _SIOCGSKNS = 0x8914, 0x894C
_IFF_UP, _IFF_RUNNING = 0x1, 0x40

_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# CLONE_NEWTIME is left out: in clone(2) its bit belongs to the exit signal.
CLONE_FLAGS = (
    CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET
)
"""Every namespace that ``clone(2)`` can make."""

NAMES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
"""Namespaces that a sandbox has of its own, as named in ``/proc/<pid>/ns``."""


def inodes(pid: str = "self") -> dict[str, int]:
    """Return name -> inode of each namespace of a process; equal inodes are one namespace.

    Raises:
        OSError: The process is gone, or its namespaces may not be seen.
    """
    return {name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in NAMES}


def clone(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork this single-threaded Python process straight into new namespaces.

    The child returns ``(0, -1)`` with the interpreter told of the fork, the parent the child's
    pid and pidfd. Where no namespace is asked for, ``clone`` does where ``clone3`` is hidden.
    Source: clone3(2), Linux 5.5.

    Args:
        flags: ``CLONE_NEW*``.
        cgroup: The folder of a version 2 control group to be born in (Linux 5.7); -1 is none.

    Raises:
        OSError: The kernel refused.
    """
    pidfd = ctypes.c_int(-1)
    flags |= _CLONE_PIDFD | (_CLONE_INTO_CGROUP if cgroup >= 0 else 0)
    rest = (*bytes(5), max(cgroup, 0))  # no stack, no thread storage, no chosen pids
    arguments = struct.pack("=11Q", flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, *rest)
    _python.PyOS_BeforeFork()
    # Through PyDLL, which keeps the interpreter's lock over the call: the child needs it held.
    pid = _python.syscall(ctypes.c_long(_CLONE3), arguments, ctypes.c_long(len(arguments)))
    number = ctypes.get_errno()
    hidden = pid < 0 and number in _HIDDEN and not flags & CLONE_FLAGS
    if hidden:
        plain = ctypes.c_long(_CLONE_PIDFD | signal.SIGCHLD)
        pid = _python.syscall(ctypes.c_long(_CLONE), plain, None, ctypes.byref(pidfd))
        number = ctypes.get_errno()
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        if hidden and cgroup >= 0:
            _join(cgroup)
        return 0, -1
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone3({flags:#x}): {os.strerror(number)}")
    return pid, pidfd.value


def _join(cgroup: int) -> None:
    """Move this process into a version 2 group that it was not born in."""
    descriptor = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
    os.write(descriptor, b"0")
    os.close(descriptor)


def map_ids(inside: int, uid: int, gid: int) -> None:
    """Let this process, alone in its new user namespace, see its own uid and gid as ``inside``.

    Args:
        inside: The uid and gid in the namespace.
        uid: The uid in the namespace that this one was made from.
        gid: The gid there.

    Raises:
        OSError: The kernel refused, or ``/proc`` does not show this process.
    """
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {uid} 1"),
        ("gid_map", f"{inside} {gid} 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def set_hostname(name: str) -> None:
    """Name this UTS namespace.

    Raises:
        OSError: Not permitted.
    """
    raw = name.encode()
    kernel.check(kernel.libc.sethostname(raw, len(raw)), "sethostname")


def enter_new_network() -> int:
    """Move this process into a new network namespace, ``lo`` up; return a descriptor of it.

    Raises:
        OSError: The kernel refused.
    """
    kernel.unshare(CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", _IFF_UP | _IFF_RUNNING)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
        return fcntl.ioctl(any_socket, _SIOCGSKNS)
