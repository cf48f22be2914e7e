"""Bytes of a run kept by their digest, so that equal ones are stored once."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import anyio.to_thread
import attrs

from sandbox_sdk.durable import sync_folder, write_stream_durably
from sandbox_sdk.errors import IntegrityError, StateError
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.values import Artifact

ARTIFACTS = "artifacts"

_KIND = "artifact"


def artifact_path(folder: Path, sha256: str, payloads: Payloads = PLAIN) -> Path:
    """Return where a run's folder keeps the bytes of a digest."""
    name = payloads.name(sha256)
    kept = "sha256" if payloads.key_id is None else "sealed"
    return folder / ARTIFACTS / kept / name[:2] / name[2:]


@attrs.frozen
class SealedShelf:
    """Where files of a sandbox are kept in a sealed run; nothing of them is written in clear.

    Attributes:
        folder: The run's folder.
        payloads: Seals them.
    """

    folder: Path
    payloads: Payloads

    def keep(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Store bytes, durable on return, and return their SHA-256 and how many they are.

        Raises:
            OSError: They cannot be written.
        """
        sha256, size = hashlib.sha256(), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for piece in pieces:
                sha256.update(piece)
                size += len(piece)
                yield piece

        # Their name is known when all of them are.
        draft = self.folder / ARTIFACTS / f".{secrets.token_hex(8)}"
        draft.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        store_pieces(draft, counted(), self.payloads)
        target = artifact_path(self.folder, sha256.hexdigest(), self.payloads)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.replace(target)
        sync_folder(target.parent)
        return sha256.hexdigest(), size


async def keep_artifact(
    folder: Path, name: str, data: bytes, payloads: Payloads = PLAIN
) -> Artifact:
    """Store bytes in a run's folder, durable on return.

    Raises:
        StateError: They cannot be written.
    """
    return await anyio.to_thread.run_sync(_keep, folder, name, data, payloads)


def _keep(folder: Path, name: str, data: bytes, payloads: Payloads) -> Artifact:
    sha256 = hashlib.sha256(data).hexdigest()
    path = artifact_path(folder, sha256, payloads)
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            store_pieces(path, [data], payloads)
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


def store_pieces(path: Path, pieces: Iterable[bytes], payloads: Payloads) -> None:
    """Write an artifact's bytes as they are kept, durable on return.

    Raises:
        OSError: They cannot be written; nothing is there then.
    """
    kept = payloads.seal_pieces(pieces, _KIND)
    write_stream_durably(path, lambda file: file.writelines(kept))


def read_artifact(folder: Path, sha256: str, payloads: Payloads = PLAIN) -> Iterator[bytes]:
    """Yield the bytes of a digest, proven to be these only at the iterator's end if sealed.

    Raises:
        IntegrityError: They are sealed, and were changed or exchanged for others.
        OSError: They cannot be read.
    """
    path = artifact_path(folder, sha256, payloads)
    found = hashlib.sha256()
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            for piece in payloads.unseal_pieces(file, _KIND):
                found.update(piece)
                yield piece
    except IntegrityError as error:
        raise IntegrityError(f"the artifact {path}: {error.message}", path=str(path)) from error
    if payloads.key_id is not None and found.hexdigest() != sha256:
        raise IntegrityError(f"the artifact {path} is another of this run", path=str(path))
