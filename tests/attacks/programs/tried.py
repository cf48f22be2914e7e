"""What attack programs share: each attempt has a name, and how all went is told as JSON.

The same program runs inside a sandbox, where its attempts must fail, and outside, where they must
work: else their failure would prove nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import signal
import sys
from collections.abc import Callable

MACHINE = platform.machine()
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

_results: dict[str, str] = {}


def check(result: int) -> int:
    """Return what a function of the C library returned, or raise its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def call(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a raw system call."""
    words = [
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    ]
    return check(libc.syscall(ctypes.c_long(number), *words))


def record(name: str, how: str) -> None:
    """Note how an attempt went."""
    _results[name] = how


def attempt(name: str, act: Callable[[], object]) -> bool:
    """Try something; note ``worked`` or the kernel's word for why not. Return whether it did."""
    try:
        act()
    except OSError as error:
        record(name, word(error))
        return False
    record(name, "worked")
    return True


def attempt_in_child(name: str, act: Callable[[], object]) -> bool:
    """Try something in a child, which may die of it; note its signal then."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            how = "worked"
        except OSError as error:
            how = word(error)
        os.write(writing, how.encode())
        os._exit(0)
    os.close(writing)
    how = os.read(reading, 100).decode()
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        how = signal.Signals(os.WTERMSIG(status)).name
    record(name, how)
    return how == "worked"


def word(error: OSError) -> str:
    """Return the kernel's name of an error."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def open_and_close(path: str, flags: int) -> None:
    """Open a path, do nothing with it, and close it."""
    os.close(os.open(path, flags))


def tell() -> None:
    """Print how all attempts went, as the last line."""
    sys.stdout.write(json.dumps(_results) + "\n")
    sys.stdout.flush()
