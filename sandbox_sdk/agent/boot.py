"""How any launcher begins: what it leaves, what it was told, and how it says that it cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any, NoReturn

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a launcher does not heed."""


def live_apart() -> None:
    """Leave the user's terminal: a Ctrl-C in it is the user's business, not ours."""
    os.setsid()
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def memory_file(text: str) -> int:
    """Return a descriptor from which the bytes of ``text`` (latin-1) can be read."""
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    os.write(descriptor, text.encode("latin-1"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def read_plan(descriptor: int) -> dict[str, Any]:
    """Return what a zygote was told in a file."""
    size = os.fstat(descriptor).st_size
    plan: dict[str, Any] = json.loads(os.pread(descriptor, size, 0))
    return plan


def refuse(control: int, what: str, error: Exception) -> NoReturn:
    """Tell why there will be no zygote, and end.

    Args:
        control: The descriptor of the launcher's socket.
        what: ``walls`` or ``preload``.
        error: Why.
    """
    why = str(error) if what == "walls" else f"{type(error).__name__}: {error}"
    with socket.socket(fileno=control) as channel:
        channel.send(json.dumps({"say": "refused", "what": what, "why": why}).encode())
    sys.exit(1)
