"""The kernel's word on changed files, through ctypes. Source: inotify(7)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

MODIFY, MOVED_FROM, MOVED_TO = 0x2, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
Q_OVERFLOW, IGNORED, ISDIR = 0x4000, 0x8000, 0x40000000

_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_FOLDER = (
    MODIFY | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
    | _ONLYDIR | _EXCL_UNLINK
)  # fmt: skip
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """One change in a watched folder.

    Attributes:
        watch: The folder's watch; -1 if events were lost.
        mask: What happened.
        cookie: The same number for both halves of a move.
        name: What it happened to, empty for the folder itself.
    """

    watch: int
    mask: int
    cookie: int
    name: bytes


def open_queue() -> int:
    """Return the descriptor of a new queue of events.

    Raises:
        OSError: The user has too many.
    """
    return _checked(_libc.inotify_init1(os.O_CLOEXEC), "fs.inotify.max_user_instances")


def add(queue: int, folder: bytes, *, follow: bool) -> int:
    """Watch a folder and return the watch; the same one if it is watched already.

    Raises:
        OSError: It is no folder, is gone, cannot be read, or the user has too many watches.
    """
    mask = _FOLDER if follow else _FOLDER | _DONT_FOLLOW
    watch = _libc.inotify_add_watch(queue, folder, ctypes.c_uint32(mask))
    return _checked(watch, "fs.inotify.max_user_watches")


def remove(queue: int, watch: int) -> None:
    """Watch a folder no more; one that is gone needs no removing."""
    _libc.inotify_rm_watch(queue, watch)


def parse(data: bytes) -> Iterator[Event]:
    """Yield the events that one read of a queue gave."""
    start = 0
    while start < len(data):
        watch, mask, cookie, length = _EVENT.unpack_from(data, start)
        start += _EVENT.size
        yield Event(watch, mask, cookie, data[start : start + length].rstrip(b"\0"))
        start += length


def _checked(result: int, limit: str) -> int:
    """Return the result, or raise what went wrong; the kernel's word for its limit misleads."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    at_limit = number in (errno.EMFILE, errno.ENOSPC)
    raise OSError(number, f"{limit} is reached" if at_limit else os.strerror(number))
