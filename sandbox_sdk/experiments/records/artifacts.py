"""Bytes of a run kept by their SHA-256, so that equal ones are stored once."""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path

import anyio.to_thread

from sandbox_sdk.durable import write_durably
from sandbox_sdk.errors import StateError
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
