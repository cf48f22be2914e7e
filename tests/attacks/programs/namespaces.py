"""Make own namespaces, and with the power over them change mounts and the kernel's switches.

Where the first step is refused, the others are tried without it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from tried import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MACHINE,
    attempt,
    attempt_in_child,
    call,
    check,
    libc,
    open_and_close,
    tell,
)

MS_NOSUID, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x2, 0x1000, 0x4000, 0x40000, 2
AT_FDCWD, WHOLE_TREE = -100, 0x8001
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[MACHINE]
OPEN_TREE, MOVE_MOUNT, FSOPEN, MOUNT_SETATTR, CLONE3 = 428, 429, 430, 442, 435
ALL = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
OWN_SYSCTL = "/proc/sys/net/ipv4/ip_forward"


def own_namespaces() -> None:
    """Make a user namespace with all others in it, and be its root."""
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWUSER | ALL))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    mount(b"none", b"/", b"", MS_REC | MS_PRIVATE)


def mount(source: bytes, target: bytes, kind: bytes, flags: int = 0, data: bytes = b"") -> None:
    """Call mount(2)."""
    check(libc.mount(source, target, kind, ctypes.c_ulong(flags), data))


def clone3() -> None:
    """Fork by clone3, into a user namespace of its own."""
    arguments = ctypes.create_string_buffer(88)
    ctypes.c_uint64.from_buffer(arguments).value = CLONE_NEWUSER
    ctypes.c_uint64.from_buffer(arguments, 32).value = 17  # SIGCHLD
    pid = call(CLONE3, arguments, 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def clone(flags: int) -> None:
    """Fork by the raw clone call."""
    pid = call({"x86_64": 56, "aarch64": 220}[MACHINE], flags | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def pivot_root() -> None:
    """Make a folder the root."""
    os.makedirs("new-root/old", exist_ok=True)
    mount(b"new-root", b"new-root", b"", MS_BIND | MS_REC)
    os.chdir("new-root")
    call(PIVOT_ROOT, b".", b"old")


def setns() -> None:
    """Join a mount namespace, this process's own."""
    check(libc.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), CLONE_NEWNS))


def mount_setattr() -> None:
    """Change the flags of the root's mount."""
    attributes = ctypes.create_string_buffer(32)
    ctypes.c_uint64.from_buffer(attributes).value = MS_NOSUID
    call(MOUNT_SETATTR, AT_FDCWD, b"/", 0, attributes, 32)


def move_mount() -> None:
    """Clone the root's mounts and put them on a folder."""
    tree = call(OPEN_TREE, AT_FDCWD, b"/", WHOLE_TREE)
    os.makedirs("moved", exist_ok=True)
    call(MOVE_MOUNT, tree, b"", AT_FDCWD, b"moved", 4)


attempt_in_child("clone", lambda: clone(CLONE_NEWUSER))
attempt_in_child("clone3", clone3)
attempt("unshare", own_namespaces)
os.makedirs("folder", exist_ok=True)
attempt("mount tmpfs", lambda: mount(b"tmpfs", b"folder", b"tmpfs"))
attempt("mount bind", lambda: mount(b"/", b"folder", b"", MS_BIND | MS_REC))
attempt("mount cgroup2", lambda: mount(b"cgroup2", b"folder", b"cgroup2"))
attempt("umount", lambda: check(libc.umount2(b"folder", MNT_DETACH)))
attempt("cover /proc", lambda: mount(b"tmpfs", b"/proc", b"tmpfs"))
attempt("uncover /proc", lambda: check(libc.umount2(b"/proc", MNT_DETACH)))
attempt("own sysctl", lambda: open_and_close(OWN_SYSCTL, os.O_WRONLY))
attempt_in_child("setns", setns)
attempt_in_child("chroot", lambda: os.chroot("folder"))
attempt_in_child("fsopen", lambda: call(FSOPEN, b"tmpfs", 0))
attempt_in_child("open_tree", lambda: call(OPEN_TREE, AT_FDCWD, b"/", WHOLE_TREE))
attempt_in_child("move_mount", move_mount)
attempt_in_child("mount_setattr", mount_setattr)
attempt_in_child("pivot_root", pivot_root)  # last: it moves the root of all of us
tell()
