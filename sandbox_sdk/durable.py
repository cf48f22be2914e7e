"""Files that are on the disk whole, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: under a name of its own, synced, then renamed."""
    write_stream_durably(path, lambda file: file.write(data))


def write_stream_durably(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file whole or not at all, its content coming from ``write``."""
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: files created or renamed in it stay after a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
