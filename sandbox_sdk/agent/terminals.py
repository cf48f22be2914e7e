"""Pseudo-terminals: PID 1 holds the controlling side, the guest gets the other as its own.

The kernel makes both ends in the sandbox's own ``devpts``, below a ``/dev`` that cannot be written
there, so no guest decides what is opened. At level ``low`` it is the host's, which is shown only to
a sandbox with a uid of its own.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import Any

KIND = "xterm-256color"
"""What ``TERM`` says where the caller's variables do not."""
END_OF_INPUT = b"\x04"
"""What ends input on a terminal in its usual mode, at the beginning of a line."""

_NONE_HERE = 'a plain user has no terminal at security_level="low": ask for "medium", or tty=False'
_SIZE = struct.Struct("HHHH")  # rows, columns, and two fields for pixels that nobody uses


def open_pair(size: dict[str, Any], opened: list[int]) -> tuple[list[int], int]:
    """Open a terminal.

    Args:
        size: ``columns`` and ``rows``.
        opened: Takes note of every descriptor, as soon as it is open.

    Returns:
        Two descriptors of the controlling side, to write and to read, and the guest's side.

    Raises:
        PermissionError: The level shows no terminal.
        OSError: No terminal or descriptor is left.
    """
    try:
        ours, theirs = os.openpty()
    except PermissionError as error:  # of Landlock, where those of others lie in the same folder
        raise PermissionError(error.errno, _NONE_HERE) from error
    opened += [ours, theirs]
    resize(ours, size["columns"], size["rows"])
    again = os.dup(ours)  # writing ends before reading does, so each has its own
    opened.append(again)
    return [again, ours], theirs


def resize(descriptor: int, columns: int, rows: int) -> None:
    """Set a terminal's size; the kernel sends ``SIGWINCH`` to its foreground programs."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, _SIZE.pack(rows, columns, 0, 0))


def adopt(descriptor: int) -> None:
    """Make a terminal that of this session, whose leader this process is: keys become signals."""
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
