"""What the agent finds out about its own walls, from inside, before any guest code runs.

Every attempt here is one that must fail at some level. The host compares what is returned with
what the level at hand promises.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Any

from sandbox_sdk.isolation.walls import capabilities, kernel, namespaces
from sandbox_sdk.isolation.walls.syscalls import NUMBERS

# What some level refuses: the host knows which of them must have failed at this one.
_REFUSED_CALLS = (
    "io_uring_setup", "keyctl", "bpf", "perf_event_open", "userfaultfd", "clone3", "shmget",
    "mq_open", "ptrace", "process_vm_readv", "personality",
)  # fmt: skip
_REFUSED_FAMILIES = {
    "AF_UNIX": socket.SOCK_STREAM,
    "AF_INET": socket.SOCK_STREAM,
    "AF_NETLINK": socket.SOCK_DGRAM,
    "AF_VSOCK": socket.SOCK_STREAM,
}
_SEALED_FILES = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger")
_READ_ONLY = ("/", "/usr", "/dev", "/proc/sys")


def collect_alone() -> dict[str, Any]:
    """Return what is to be seen before this process opens, starts or hides anything."""
    return {
        "environ": _environ(),
        "descriptors": _descriptors(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    }


def collect() -> dict[str, Any]:
    """Return what holds in this process, as plain values for ``HELLO``."""
    return {
        "status": capabilities.status(),
        "namespaces": namespaces.inodes(),
        "interfaces": _interfaces(),
        "refused_calls": _refused_calls(),
        # Should it work, then in this process: the report ends the sandbox at every level.
        "user_namespace": _make_user_namespace(),
        "sockets": {name: _make_socket(name, kind) for name, kind in _REFUSED_FAMILIES.items()},
        "landlock": _open_root(),
        "outside_signal": _signal_outside(),
        "sealed_files": {path: _open_for_writing(path) for path in _SEALED_FILES},
        "writable": [path for path in _READ_ONLY if os.access(path, os.W_OK)],
    }


def _interfaces() -> list[str]:
    with open("/proc/self/net/dev") as lines:
        return [line.partition(":")[0].strip() for line in lines if ":" in line]


def rehearse() -> None:
    """Do what harms nobody outside of a sandbox, so that clones find it done once already."""
    found = {
        **collect_alone(),
        "status": capabilities.status(),
        "namespaces": namespaces.inodes(),
        "interfaces": _interfaces(),
        "landlock": _open_root(),
    }
    json.dumps(found)


def _environ() -> list[str]:
    with open("/proc/self/environ", "rb") as file:
        entries = file.read().split(b"\0")
    return [
        entry.partition(b"=")[0].decode("utf-8", "backslashreplace") for entry in entries if entry
    ]


def _descriptors() -> list[int]:
    """Return what is open, the descriptor of the listing itself not counted."""
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    return sorted(descriptor for descriptor in listed if _is_open(descriptor))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _refused_calls() -> dict[str, int]:
    """Make each call with nonsense arguments; 0 would mean that it worked."""
    numbers = NUMBERS[kernel.MACHINE]
    return {
        name: kernel.attempt(number, -1, 0, 0, -1, 0)
        for name in _REFUSED_CALLS
        if (number := numbers[name])
    }


def _make_user_namespace() -> int:
    try:
        kernel.unshare(namespaces.CLONE_NEWUSER)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _make_socket(family: str, kind: int) -> int:
    try:
        socket.socket(getattr(socket, family), kind).close()
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _signal_outside() -> int:
    """Ask whether the process that made this one, if it can be named, may be signalled."""
    if not (parent := os.getppid()):
        return errno.ESRCH  # of another PID namespace
    try:
        os.kill(parent, 0)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _open_root() -> int:
    """Open the root folder, which all may read but where Landlock has no rule for it."""
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


def _open_for_writing(path: str) -> int:
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        return error.errno or errno.EPERM
    return 0
