"""Files that hold one secret as text, and that only their owner may read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from sandbox_sdk.durable import sync_folder, write_durably
from sandbox_sdk.errors import ConfigError

LARGEST_FILE = 4096
"""Bytes of the largest key file."""


def write_secret(path: Path, text: str) -> None:
    """Write a new file of mode 0600, whole or not at all, durable on return.

    Raises:
        FileExistsError: There is one; it was not touched.
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        write_durably(draft, f"{text}\n".encode())
        os.link(draft, path)  # which, unlike a rename, takes no other's place
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def read_secret(path: Path) -> str:
    """Return what a file holds, without white space around it.

    Raises:
        ConfigError: It cannot be read, is not this user's alone, or is no small text.
    """
    try:
        # Non-blocking, so that a named pipe without a writer does not hang.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            fault = _fault(found, path)
            data = b"" if fault else file.read(LARGEST_FILE + 1)
    except OSError as error:
        fault, data = f"cannot be read: {error.strerror}", b""
    if not fault and len(data) > LARGEST_FILE:
        fault = "is too large for a key file"
    try:
        if not fault:
            return data.decode().strip()
    except UnicodeDecodeError:
        fault = "is not UTF-8 text"
    raise ConfigError(fault, faults=(fault,))


def _fault(found: os.stat_result, path: Path) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, and this process is user {os.geteuid()}"
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return f"can be read by others (mode {mode:04o}); run: chmod 600 {path}"
    return ""
