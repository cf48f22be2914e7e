"""The way from the root folder to what a sandbox may use, as root and without its own mounts.

A uid of the sandbox's own can enter neither the state folder, which is its owner's alone, nor an
interpreter below root's home. The first is opened to one group that only sandboxes are in. What
bars the way else is covered, in a mount namespace of the zygote's, by a folder that leads nowhere
but to what is needed; every path stays as it is.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from sandbox_sdk.isolation.walls import mounts

_COVER_BYTES = 1024 * 1024


def let_in(folder: str, group: int) -> None:
    """Let a group pass through a folder of ours, but not look into it.

    Raises:
        OSError: The group does not exist here, or the folder is not ours.
    """
    found = os.stat(folder)
    if found.st_mode & stat.S_IXOTH or (found.st_gid == group and found.st_mode & stat.S_IXGRP):
        return
    try:
        os.chown(folder, -1, group)
    except OSError as error:
        said = f"uid {group} cannot be dropped to: {error.strerror}"
        raise OSError(error.errno, said) from error
    os.chmod(folder, stat.S_IMODE(found.st_mode) | stat.S_IXGRP)  # noqa: S103 - no more than passing


def open_to(group: int, state: str, paths: Iterable[str]) -> None:
    """See that who is in ``group`` can reach the state folder's workspaces and these paths.

    Args:
        group: The group of those who pass.
        state: The state folder.
        paths: Files and folders to read.

    Raises:
        OSError: A folder bars the way, and no mount can be made here.
    """
    with os.scandir(state) as entries:
        ours = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for folder in (state, *ours):
        let_in(folder, group)
    barred: dict[str, list[str]] = {}
    for path in (state, *paths):
        if bar := _bar(path, group):
            barred.setdefault(bar, []).append(path)
    if barred:
        _cover(barred, writable=state)


def _bar(path: str, group: int) -> str:
    """Return the first folder on the way to a path that others may not enter, if there is one."""
    way = "/"
    for name in os.path.dirname(path).split("/")[1:]:
        way = os.path.join(way, name)
        found = os.stat(way)
        through_group = found.st_gid == group and found.st_mode & stat.S_IXGRP
        if not (found.st_mode & stat.S_IXOTH or through_group):
            return way
    return ""


def _cover(barred: dict[str, list[str]], *, writable: str) -> None:
    """Put a folder with only these paths on each that bars the way to them."""
    try:
        mounts.enter_private_namespace()
    except OSError as error:
        said = "; ".join(f"{paths[0]} lies below {folder}" for folder, paths in barred.items())
        raise OSError(
            error.errno, f"other users may not enter a folder on the way: {said}"
        ) from error
    for folder, paths in barred.items():
        # Outer ones first: what lies below them is then a part of them.
        needed = [path for path in sorted(set(paths)) if not _below(path, paths)]
        ready = [(mounts.detached(path, writable=path == writable), path) for path in needed]
        files = {path for path in needed if not os.path.isdir(path)}
        mounts.tmpfs(folder, size_bytes=_COVER_BYTES)
        for mount, path in ready:
            os.makedirs(os.path.dirname(path) if path in files else path, exist_ok=True)
            if path in files:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))
            mounts.attach(mount, path)
            os.close(mount)
        mounts.seal_one(folder)


def _below(path: str, others: Iterable[str]) -> bool:
    return any(path != other and path.startswith(f"{other}/") for other in others)
