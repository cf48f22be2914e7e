"""What a sandbox uses, where no control group counts it: processes summed, folders walked."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from sandbox_sdk.isolation.walls.cgroups import GroupUsage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen(kw_only=True)
class FolderUse:
    """What a folder takes on disk.

    Attributes:
        bytes: Blocks taken, sparse holes not counted.
        files: Files and folders in it.
        complete: Whether all was walked; a walk stops once a bound is passed.
        unseen: Why something could not be looked into, which counts as more files than allowed.
    """

    bytes: int
    files: int
    complete: bool
    unseen: str = ""


def folder_use(folder: Path, *, most_bytes: int, most_files: int) -> FolderUse:
    """Walk a folder, never through a link, until all is counted or a bound is passed.

    What cannot be looked into (a folder without permissions, a path longer than the kernel's
    bound) could hide anything, so it counts as more files than allowed.
    """
    total = files = 0
    seen: set[int] = set()
    todo = [os.fspath(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # guests remove things while we look
                    files += 1
                    if info.st_nlink == 1 or entry.is_dir(follow_symlinks=False):
                        total += info.st_blocks * 512
                    elif info.st_ino not in seen:  # a hard link takes its blocks once
                        seen.add(info.st_ino)
                        total += info.st_blocks * 512
                    if total > most_bytes or files > most_files:
                        return FolderUse(bytes=total, files=files, complete=False)
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # as above
        except OSError as error:
            unseen = f"a folder cannot be looked into: {error.strerror}"
            return FolderUse(bytes=total, files=most_files + 1, complete=False, unseen=unseen)
    return FolderUse(bytes=total, files=files, complete=True)


def used_up(folder: int) -> str:
    """Return what a file system of fixed size has no more of: ``disk``, ``disk_files``, or nothing.

    Args:
        folder: A descriptor of something in it.
    """
    found = os.statvfs(folder)
    if not found.f_bavail:
        return "disk"
    return "" if found.f_favail else "disk_files"


def process_sum(init: int) -> GroupUsage:
    """Return what PID 1 of a sandbox and all below it use, as ``/proc`` shows it now.

    Memory is resident and shared pages counted once per process, so it never looks smaller than
    it is. CPU time includes children that were waited for.
    """
    cpu_ticks = memory = count = 0
    todo = [init]
    while todo:
        pid = todo.pop()
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            with open(f"/proc/{pid}/statm", "rb") as file:
                resident = int(file.read().split()[1])
            todo += _children(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        cpu_ticks += sum(map(int, fields[11:15]))
        memory += resident * _PAGE
        count += int(fields[17])
    return GroupUsage(
        cpu_seconds=cpu_ticks / _TICKS,
        memory_bytes=memory,
        memory_peak_bytes=None,
        pids=count,
    )


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found
