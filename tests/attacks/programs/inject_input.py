"""Type into terminals: into those this program was started on, and into one of its own.

The request of an ``ioctl`` has 64 bits, of which the kernel reads 32: a filter that compares all
of them lets a request with a high bit pass.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import termios

from tried import MACHINE, attempt, attempt_in_child, call, tell

IOCTL = {"x86_64": 16, "aarch64": 29}[MACHINE]
TIOCLINUX, HIGH_BIT = 0x541C, 1 << 32


def type_into(descriptor: int, text: bytes, request: int = termios.TIOCSTI) -> None:
    """Put text into a terminal's input, as if typed."""
    for number in text:
        call(IOCTL, descriptor, request, ctypes.create_string_buffer(bytes([number])))


def type_into_tty() -> None:
    """Type into the terminal that controls this session."""
    descriptor = os.open("/dev/tty", os.O_RDWR)
    try:
        type_into(descriptor, b"INJECTED\n")
    finally:
        os.close(descriptor)


def on_own_terminal(request: int) -> None:
    """Make a session with a terminal of its own, and send that a request."""
    os.setsid()
    _, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    type_into(terminal, b"\x02", request)


for descriptor in (0, 1, 2):
    attempt(f"descriptor {descriptor}", lambda: type_into(descriptor, b"INJECTED\n"))
attempt("/dev/tty", type_into_tty)
for name, request in {"TIOCSTI": termios.TIOCSTI, "TIOCLINUX": TIOCLINUX}.items():
    attempt_in_child(name, lambda: on_own_terminal(request))
    attempt_in_child(f"{name}, high bit", lambda: on_own_terminal(request | HIGH_BIT))
tell()
