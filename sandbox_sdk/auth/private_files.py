"""Files with secrets, which only their owner may read, and locks that processes share."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.to_thread import run_sync

from sandbox_sdk.errors import StateError

_LARGEST = 64 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05


def read_private(path: Path) -> bytes:
    """Return what a file holds that only this user may read.

    Raises:
        FileNotFoundError: There is none.
        StateError: It cannot be read, is too large, belongs to somebody else, others may read it,
            or it is no plain file.
    """
    try:
        # Non-blocking, so that a named pipe without a writer does not hang.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            fault = _fault(os.fstat(file.fileno()), path)
            data = b"" if fault else file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror}; it must be a plain file of yours",
            errno=error.errno,
        ) from error
    if len(data) > _LARGEST:
        fault = f"is larger than {_LARGEST} bytes: it is another program's; choose another path"
    if fault:
        raise StateError(f"{path} {fault}")
    return data


@asynccontextmanager
async def locked(path: Path, *, timeout: float) -> AsyncGenerator[None]:
    """Let one process, and one task in it, at a time go on. The kernel unlocks at a death.

    Args:
        path: A file beside that which is guarded; made if need be, and never removed.
        timeout: Seconds to wait for it.

    Raises:
        StateError: It cannot be opened, or others held it for so long.
    """
    descriptor = await run_sync(_open, path)
    try:
        pause = _FIRST_PAUSE
        with anyio.move_on_after(timeout) as waiting:
            while not _try(descriptor):
                await anyio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        if waiting.cancelled_caught:
            raise StateError(
                f"another process has held the lock {path} for {timeout:g} s: see which, with "
                f"fuser {path}"
            )
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(
            f"the lock {path} cannot be opened: {error.strerror}; its folder must be there and "
            "yours",
            errno=error.errno,
        ) from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fault(found: os.stat_result, path: Path) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file; move it away"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, and this process is user {os.geteuid()}"
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return f"can be read by others (mode {mode:04o}); run: chmod 600 {path}"
    return ""
