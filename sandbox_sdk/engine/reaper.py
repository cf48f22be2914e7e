"""Removing what is left: of owners that died, and of trees that hostile code built."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox_sdk.isolation.walls.cgroups import Group, Hierarchy
from sandbox_sdk.store import owner
from sandbox_sdk.store.folders import StateFolders

log = logging.getLogger("sandbox_sdk.reaper")

_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.005


def remove_group(group: Group) -> bool:
    """Kill what is in a control group and remove it; return whether it is gone. Blocks."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not group.remove():
        if time.monotonic() > deadline:
            log.warning("reaper.group_stays", extra={"folders": group.folders})
            return False
        group.kill()
        time.sleep(_PAUSE_SECONDS)
    return True


def remove_ownerless(prefix: str, hierarchy: Hierarchy | None, folders: StateFolders) -> None:
    """Remove groups and workspaces of sandboxes that were nobody's, or whose owner died. Blocks.

    Args:
        prefix: Begins the name of every one of this state folder; an owner's token follows.
        hierarchy: Where the groups stand.
        folders: The state folder.
    """
    groups = [] if hierarchy is None else hierarchy.leftovers()
    ready = [path.name for path in folders.ready.iterdir()]
    # Who is asked for after them lives, if what is there is to be left alone.
    living = owner.live(folders.owners)

    def ownerless(name: str) -> bool:
        return name.startswith(prefix) and name.removeprefix(prefix).split("-")[0] not in living

    if hierarchy is not None:
        for name in filter(ownerless, groups):
            remove_group(hierarchy.group(name))
    for name in filter(ownerless, ready):
        if (folders.ready / name).is_symlink():
            (folders.ready / name).unlink()
        else:
            remove_tree(folders.ready / name)


def remove_tree(folder: Path) -> None:
    """Remove a folder that no code uses any more, however deep or oddly protected. Blocks.

    Nothing is followed and nothing recursed into: the content of each subfolder is moved up to
    the top before the subfolder goes, so depth costs neither stack nor descriptors.

    Raises:
        OSError: The host refused.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    names = (f"reaped-{number}-{time.monotonic_ns()}" for number in itertools.count())
    try:
        while entries := os.listdir(root):
            for entry in entries:
                if not _unlinked(entry, root):
                    _lift(entry, root, names)
    finally:
        os.close(root)
    os.rmdir(folder)


def _unlinked(name: str, parent: int) -> bool:
    """Remove what is not a folder; return whether it was not."""
    try:
        os.unlink(name, dir_fd=parent)
    except IsADirectoryError:
        return False
    return True


def _lift(name: str, root: int, names: Iterator[str]) -> None:
    """Move the folders in ``name`` up to the root, remove its files, then itself."""
    os.chmod(name, 0o700, dir_fd=root)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        for entry in os.listdir(inner):
            if not _unlinked(entry, inner):
                os.chmod(entry, 0o700, dir_fd=inner)  # a folder moves only if it is writable
                os.rename(entry, next(names), src_dir_fd=inner, dst_dir_fd=root)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=root)
