"""Files sealed as streams; a file appears whole, on the disk and proven, or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from sandbox_sdk.crypto_utils.records import Label
from sandbox_sdk.crypto_utils.secret import Secret
from sandbox_sdk.crypto_utils.streams import seal_stream, unseal_stream
from sandbox_sdk.durable import write_stream_durably
from sandbox_sdk.errors import IntegrityError


def seal_file(key: Secret, source: Path, target: Path, label: Label | None = None) -> None:
    """Seal a file into another, which only its owner may read. Blocks on the disk.

    Raises:
        OSError: One cannot be read, or the other written; the target is then as it was.
    """
    with _open(source) as reading:
        write_stream_durably(target, lambda writing: seal_stream(key, reading, writing, label))


def unseal_file(key: Secret, source: Path, target: Path, label: Label | None = None) -> None:
    """Open a sealed file into another, which only its owner may read. Blocks on the disk.

    The target has its name only when the last chunk was opened.

    Raises:
        IntegrityError: It was changed, cut short, belongs elsewhere, or is of another key; the
            target is then as it was.
        OSError: One cannot be read, or the other written; the target is then as it was.
    """

    def write(writing: IO[bytes]) -> None:
        for data in unseal_stream(key, reading, label):
            writing.write(data)

    with _open(source) as reading:
        try:
            write_stream_durably(target, write)
        except IntegrityError as error:
            raise IntegrityError(f"{source}: {error.message}", path=str(source)) from error


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
