"""The mount tree of a template, which its zygote builds once and every sandbox of it inherits."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sandbox_sdk.isolation.walls import kernel, mounts, namespaces

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_MOUNT_POINTS = ("/proc", "/dev/shm", "/dev/pts", "/tmp", "/workspace")  # noqa: S108 - inside
_ROOT_BYTES = 4 * 1024 * 1024


class Views(NamedTuple):
    """The two mount namespaces of a zygote, as descriptors.

    Attributes:
        host: Where the host can be reached.
        tree: Where only the template's tree can.
    """

    host: int
    tree: int

    @contextmanager
    def on_host(self) -> Generator[None, None, None]:
        """See the host for a while instead of the tree."""
        kernel.setns(self.host, namespaces.CLONE_NEWNS)
        try:
            yield
        finally:
            kernel.setns(self.tree, namespaces.CLONE_NEWNS)


def enter(
    base: str,
    *,
    shown: Sequence[tuple[str, str]],
    links: Mapping[str, str],
    texts: Mapping[str, str],
) -> Views:
    """Build the tree in a mount namespace of its own and make it this process's root.

    Args:
        base: Any folder of the host; the tree is mounted on it, unseen by all others.
        shown: Host path and path inside of each read-only file or folder.
        links: Path inside -> what the symbolic link there says.
        texts: Path inside -> content of a file made for it.

    Raises:
        OSError: A path is missing, or the kernel refused.
    """
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(namespaces.CLONE_NEWNS)
    tree = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    # Taken hold of before the tree covers anything they may lie below.
    ready = [(mounts.detached(source), source, target) for source, target in shown]
    for name in _DEVICES:
        path = f"/dev/{name}"
        ready.append((mounts.detached(path, device_files=True), path, path))
    files = {source for _, source, _ in ready if not os.path.isdir(source)}
    mounts.tmpfs(base, size_bytes=_ROOT_BYTES)
    for folder in _MOUNT_POINTS:
        os.makedirs(base + folder)
    for mount, source, target in ready:
        _make_point(base + target, file=source in files)
        mounts.attach(mount, base + target)
        os.close(mount)
    for path, text in texts.items():
        os.makedirs(os.path.dirname(base + path), exist_ok=True)
        with open(base + path, "x", encoding="utf-8") as file:
            file.write(text)
    for path, says in links.items():
        os.makedirs(os.path.dirname(base + path), exist_ok=True)
        os.symlink(says, base + path)
    for name, says in _DEVICE_LINKS.items():
        os.symlink(says, f"{base}/dev/{name}")
    _mount_proc(f"{base}/proc")
    mounts.seal_one(base)
    mounts.pivot(base)
    return Views(host, tree)


def _make_point(path: str, *, file: bool) -> None:
    """Make what a mount can stand on."""
    os.makedirs(os.path.dirname(path) if file else path, exist_ok=True)
    if file:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _mount_proc(target: str) -> None:
    """Mount the ``/proc`` of a PID namespace that ends at once.

    A sandbox may mount its own only where a whole one stands already; in this one no process is
    ever to be seen, should it ever be uncovered.
    """
    child, pidfd = namespaces.clone(namespaces.CLONE_NEWPID)
    if child == 0:
        try:
            mounts.proc(target)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(0)
    os.close(pidfd)
    failed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if failed:
        raise OSError(failed, f"mount /proc: {os.strerror(failed)}")
