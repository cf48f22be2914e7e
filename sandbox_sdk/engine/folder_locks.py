"""A lock on a folder that its owner may move to another place, or remove, while it is locked."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_folder(folder: Path) -> int:
    """Lock a folder, made if need be, and return the lock, to be closed. Blocks, but not for it.

    The lock is on the folder itself, not its path: one on what is no longer in its place is none,
    and is taken anew. The kernel unlocks when the last process that has it open ends.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), folder.stat()):
                return lock
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
