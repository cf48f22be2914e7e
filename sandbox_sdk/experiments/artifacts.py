"""Bytes of a run kept by their SHA-256, so that equal ones are stored once."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

import anyio.to_thread

from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.journal import sync_folder
from sandbox_sdk.values import Artifact

ARTIFACTS = "artifacts"


def artifact_path(folder: Path, sha256: str) -> Path:
    """Return where a run's folder keeps the bytes of a digest."""
    return folder / ARTIFACTS / "sha256" / sha256[:2] / sha256[2:]


async def keep_artifact(folder: Path, name: str, data: bytes) -> Artifact:
    """Store bytes in a run's folder, durable on return.

    Raises:
        StateError: They cannot be written.
    """
    return await anyio.to_thread.run_sync(_keep, folder, name, data)


def _keep(folder: Path, name: str, data: bytes) -> Artifact:
    sha256 = hashlib.sha256(data).hexdigest()
    path = artifact_path(folder, sha256)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_durably(path, data)
        except OSError as error:
            raise StateError(
                f"the artifact {name!r} cannot be kept: {error.strerror or error}. "
                "Free space or repair the disk, then run again",
                errno=error.errno,
            ) from error
    return Artifact(
        path=name,
        size_bytes=len(data),
        sha256=sha256,
        media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
    )


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
