"""A private mount namespace, and folders shown in it under other paths."""

from __future__ import annotations

import os

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.isolation.walls.namespaces import CLONE_NEWNS

MS_RDONLY, MS_NOSUID, MS_NODEV = 0x1, 0x2, 0x4
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 0x20, 0x1000, 0x4000, 0x80000
MNT_DETACH = 2


def enter_private_namespace() -> None:
    """Give this process mounts of its own: the host's changes come in, ours never go out.

    Raises:
        OSError: Not permitted (needs CAP_SYS_ADMIN).
    """
    kernel.unshare(CLONE_NEWNS)
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


def detach(target: str) -> None:
    """Take the mount at ``target`` away, now for new openers and at once when unused."""
    kernel.umount(target, MNT_DETACH)
