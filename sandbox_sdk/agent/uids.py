"""The uids that a root launcher drops to: one per sandbox, which owns that sandbox's workspace."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """A sandbox cannot be started safely; the text says why and what to do."""


def hold(folder: str, first: int, count: int, former: int) -> tuple[int, int]:
    """Return a uid of the range that no other sandbox has, and the lock that keeps it ours.

    The former owner of the workspace comes first: then none of its files has to change hands.

    Raises:
        Refused: All are taken, or the range would give out root.
    """
    if first < 1:
        raise Refused("refusing to start a sandbox as root: its uid range begins at 0")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    uids = range(first, first + count)
    for uid in itertools.chain([former] if former in uids else [], uids):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(f"{folder}/{uid}", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return uid, descriptor
    raise Refused(
        f"all {count} uids from {first} on are in use by other sandboxes; clean some up, or "
        "configure a larger uid_range"
    )


def give_workspace(folder: str, uid: int) -> None:
    """Make a uid the owner of everything in a workspace, links themselves and not their targets.

    Raises:
        Refused: The uid does not exist in this process's own user namespace.
    """
    if os.stat(folder).st_uid == uid:
        return
    try:
        os.chown(folder, -1, uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Refused(
            f"uid {uid} is not mapped here, as in a rootless container, and root needs one to "
            "drop to: run as an ordinary user, or set uid_range to uids that are mapped"
        ) from error
    _give_below(folder, uid)
    os.chown(folder, uid, uid)


def _give_below(folder: str, uid: int) -> None:
    """Change the owner of all in a tree that nobody uses, however deep; one descriptor is open."""
    here = os.open(folder, _FOLDER)
    todo: list[list[str]] = []  # for each level down to here, its folders not yet entered
    try:
        while True:
            inner: list[str] = []
            for name in os.listdir(here):
                os.chown(name, uid, uid, dir_fd=here, follow_symlinks=False)
                if stat.S_ISDIR(os.lstat(name, dir_fd=here).st_mode):
                    inner.append(name)
            todo.append(inner)
            while todo and not todo[-1]:
                todo.pop()
                if todo:
                    here = _step("..", here)
            if not todo:
                return
            here = _step(todo[-1].pop(), here)
    finally:
        os.close(here)


def _step(name: str, here: int) -> int:
    """Open a folder of ``here``, which is closed then."""
    there = os.open(name, _FOLDER, dir_fd=here)
    os.close(here)
    return there
