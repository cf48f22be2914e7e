"""Take as much of one thing as given, of what the kernel counts per uid, and hold it till told.

Tells how many were had and why no more, then waits for the end of its input.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pty
import sys
from collections.abc import Callable

from tried import check, libc, record, tell, word

name, most = sys.argv[1], int(sys.argv[2])
held: list[object] = []


def pipe() -> None:
    """Make a pipe and let it grow to what one may have."""
    reading, writing = os.pipe()
    held.append(writing)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 1024 * 1024)


def watch() -> None:
    """Watch this folder, by a watcher of its own."""
    watcher = check(libc.inotify_init1(os.O_CLOEXEC))
    check(libc.inotify_add_watch(watcher, b".", ctypes.c_uint32(0x100)))


def timer() -> None:
    """Have a timer, which counts as a signal that may come."""
    check(libc.timer_create(1, None, ctypes.byref(ctypes.c_void_p())))


def lock() -> None:
    """Lock a file of its own."""
    descriptor = os.open(f"locked-{os.getpid()}-{len(held)}", os.O_RDWR | os.O_CREAT)
    held.append(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


WAYS: dict[str, Callable[[], object]] = {
    "pipes": pipe,
    "watches": watch,
    "terminals": pty.openpty,
    "timers": timer,
    "locks": lock,
    "files": lambda: os.open("/dev/null", os.O_RDONLY),
}
count, how = 0, "enough"
while count < most and how == "enough":
    try:
        WAYS[name]()
        count += 1
    except OSError as error:
        how = word(error)
record(name, f"{count} {how}")
tell()
sys.stdin.read()
