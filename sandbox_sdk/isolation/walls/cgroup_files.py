"""The files of control groups, read and written with as few system calls as they need."""

from __future__ import annotations

import errno
import os

GONE = (errno.ENOENT, errno.ENODEV)
"""What a file of a group that was removed gives; ``ENODEV`` if it was opened before that."""

_LARGEST_READ = 64 * 1024


def read(path: str) -> str:
    """Return the text of a kernel's file.

    Raises:
        OSError: Not permitted, or it is not there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts: list[bytes] = []
        while part := os.read(descriptor, _LARGEST_READ):
            parts.append(part)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode()


def write(path: str, text: str) -> None:
    """Write a kernel's file in one call; it is never made.

    Raises:
        OSError: Not permitted, not there, or the kernel refused the text.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def write_known(path: str, text: str) -> bool:
    """Write a file that only some kernels have; return whether this one has it.

    Raises:
        OSError: Not permitted, or the kernel refused the text.
    """
    try:
        write(path, text)
    except OSError as error:
        if error.errno not in GONE:
            raise
        return False
    return True


def number(path: str) -> int | None:
    """Return the number in a file that only some kernels have, else ``None``.

    Raises:
        OSError: Not permitted, or the group goes at this moment.
    """
    try:
        return int(read(path))
    except FileNotFoundError:
        return None


def fields(path: str) -> dict[str, int]:
    """Return the lines ``name number`` of a file, as name -> number.

    Raises:
        OSError: Not permitted, or it is not there.
    """
    pairs = (line.split() for line in read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def stalled_seconds(path: str) -> float | None:
    """Return how long some process waited, by a pressure file; ``None`` where none is kept.

    Source: Documentation/accounting/psi.rst, Linux 4.20 (for groups of version 2).
    """
    try:
        text = read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
            return None
        raise
    some = text.partition("\n")[0]
    return int(some.rpartition("total=")[2]) / 1e6
