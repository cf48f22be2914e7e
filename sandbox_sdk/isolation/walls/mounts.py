"""A private mount namespace, and folders shown in it under other paths."""

from __future__ import annotations

import os
import struct

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.namespaces import CLONE_NEWNS
from sandbox_sdk.isolation.walls.syscalls import NUMBERS

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 0x20, 0x1000, 0x4000, 0x80000
MNT_DETACH = 2
_MS_PRIVATE = 1 << 18

# One number each on every architecture since the unified table.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 0x1, 0x2, 0x4
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000


def enter_private_namespace() -> None:
    """Give this process mounts of its own: the host's changes come in, ours never go out.

    Raises:
        OSError: Not permitted (needs CAP_SYS_ADMIN).
    """
    kernel.unshare(CLONE_NEWNS)
    cut_off()


def cut_off() -> None:
    """Let no mount of this new mount namespace go out; the host's changes still come in.

    Raises:
        OSError: Not permitted.
    """
    kernel.mount("none", "/", "", MS_REC | MS_SLAVE)


def tmpfs(target: str, *, size_bytes: int, mode: int = 0o755) -> None:
    """Mount an empty tmpfs on the folder ``target``."""
    kernel.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size_bytes},mode={mode:o}")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Show ``source`` at ``target``, which is made as a folder or file to fit.

    The source is opened once and bound through its descriptor, so that nothing can put a link
    in its place between look and mount.

    Raises:
        OSError: The source is missing, or the kernel refused.
    """
    descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.makedirs(target, mode=0o755, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        kernel.mount(f"/proc/self/fd/{descriptor}", target, "", MS_BIND | MS_REC)
    finally:
        os.close(descriptor)
    # A bind mount ignores MS_RDONLY; only a remount applies it.
    flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0)
    kernel.mount("none", target, "", flags)


def proc(target: str) -> None:
    """Mount the ``/proc`` of this PID namespace."""
    kernel.mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def write_protect(folder: str) -> None:
    """Make a folder, and the same file system below it, read-only where it stands.

    Raises:
        OSError: The kernel refused.
    """
    kernel.mount(folder, folder, "", MS_BIND)
    seal_one(folder)


def seal_one(target: str) -> None:
    """Make the mount at ``target``, but no other below it, read-only."""
    kernel.mount("none", target, "", MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV | MS_RDONLY)


def terminals(target: str) -> None:
    """Mount pseudo-terminals of this sandbox's own."""
    kernel.mount(
        "devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"
    )


def detach(target: str) -> None:
    """Take the mount at ``target`` away, now for new openers and at once when unused."""
    kernel.umount(target, MNT_DETACH)


def detached(path: str, *, writable: bool = False, device_files: bool = False) -> int:
    """Return a descriptor of a new mount that shows ``path`` and stands nowhere yet.

    All mounts below it are shown too, but none that the host makes later. Setuid programs do not
    work in it.
    Source: open_tree(2), Linux 5.2; mount_setattr(2), Linux 5.12.

    Args:
        path: A host file or folder.
        writable: Whether it may be written.
        device_files: Whether device files in it work.

    Raises:
        OSError: The path is missing, or the kernel refused.
    """
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    mount = kernel.syscall(f"open_tree {path}", _OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    wanted = _ATTR_NOSUID | (0 if device_files else _ATTR_NODEV) | (0 if writable else _ATTR_RDONLY)
    attributes = struct.pack("=4Q", wanted, 0, _MS_PRIVATE, 0)
    how = _AT_EMPTY_PATH | _AT_RECURSIVE
    try:
        kernel.syscall(
            "mount_setattr", _MOUNT_SETATTR, mount, b"", how, attributes, len(attributes)
        )
    except BaseException:
        os.close(mount)
        raise
    return mount


def detached_tmpfs(*, size_bytes: int, files: int, uid: int, gid: int) -> int:
    """Return a descriptor of a new, empty tmpfs that stands nowhere yet.

    Source: fsopen(2), fsconfig(2), fsmount(2), Linux 5.2.

    Args:
        size_bytes: How much it holds.
        files: How many files and folders it holds, itself among them.
        uid: Its owner, who alone may enter.
        gid: The owner's group.

    Raises:
        OSError: The kernel refused.
    """
    context = kernel.syscall("fsopen tmpfs", _FSOPEN, b"tmpfs", _FSOPEN_CLOEXEC)
    settings = {"size": size_bytes, "nr_inodes": files, "uid": uid, "gid": gid, "mode": "700"}
    try:
        for name, value in settings.items():
            kernel.syscall(
                f"tmpfs {name}={value}",
                _FSCONFIG,
                context,
                _FSCONFIG_SET_STRING,
                name.encode(),
                str(value).encode(),
                0,
            )
        kernel.syscall("make tmpfs", _FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        flags = _ATTR_NOSUID | _ATTR_NODEV
        return kernel.syscall("mount tmpfs", _FSMOUNT, context, _FSMOUNT_CLOEXEC, flags)
    finally:
        os.close(context)


def attach(mount: int, target: str) -> None:
    """Put a detached mount on ``target``.

    Raises:
        OSError: The kernel refused.
    """
    kernel.syscall(
        f"move_mount to {target}",
        _MOVE_MOUNT,
        mount,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
    )


def pivot(root: str) -> None:
    """Make ``root`` the root of this mount namespace and let go of the old one.

    Raises:
        OSError: The kernel refused.
    """
    os.chdir(root)
    # With both names the same the old root ends up on top of the new one: no folder is needed.
    kernel.syscall("pivot_root", NUMBERS[kernel.MACHINE]["pivot_root"] or 0, b".", b".")
    kernel.umount(".", MNT_DETACH)
    os.chdir("/")
