"""Take much of one thing: ``processes``, ``memory`` (MiB) or ``disk`` (MiB), and how many.

What stops it may end it, so that it tells nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from tried import attempt, tell

what, count = sys.argv[1], int(sys.argv[2])
MIB = 1024 * 1024


def processes() -> None:
    """Have as many processes at once."""
    children: list[int] = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def memory() -> None:
    """Touch as much memory, in processes that have 16 MiB each."""
    reading, writing = os.pipe()
    children: list[int] = []
    for _ in range(count // 16):
        child = os.fork()
        if child == 0:
            kept = bytearray(b"x" * (16 * MIB))
            os.write(writing, b"." if kept else b"")
            signal.pause()
        children.append(child)
    os.close(writing)
    touched = 0
    while touched < len(children) and (told := os.read(reading, len(children))):
        touched += len(told)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if touched < len(children):
        raise MemoryError


def disk() -> None:
    """Write as much to a file."""
    with open("filled", "wb", buffering=0) as file:
        for _ in range(count):
            file.write(b"x" * MIB)


attempt(what, {"processes": processes, "memory": memory, "disk": disk}[what])
tell()
time.sleep(1)  # for those who look now and then
