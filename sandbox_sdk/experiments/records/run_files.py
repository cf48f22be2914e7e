"""Files of a run's folder that are written once, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from sandbox_sdk.durable import write_durably, write_stream_durably
from sandbox_sdk.errors import IntegrityError, StateError
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads


def write_file(folder: Path, name: str, pieces: Iterable[bytes], payloads: Payloads) -> None:
    """Write a file that a run keeps whole, durable on return.

    Raises:
        OSError: It cannot be written.
    """
    kept = payloads.seal_pieces(pieces, name)
    write_stream_durably(folder / name, lambda file: file.writelines(kept))


def read_file(folder: Path, name: str, payloads: Payloads = PLAIN) -> Iterator[bytes]:
    """Yield the content of a file that a run keeps whole. Reads the disk.

    Raises:
        IntegrityError: It is sealed, and was changed.
        StateError: It cannot be read.
    """
    path = folder / name
    try:
        with path.open("rb") as file:
            yield from payloads.unseal_pieces(file, name)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error.message}", path=str(path)) from error
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror or error}", errno=error.errno
        ) from error


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file that comes in pieces."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def write_json(path: Path, value: object) -> None:
    """Write a JSON file whole or not at all. Blocks on the disk.

    Raises:
        StateError: It cannot be written.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    try:
        write_durably(path, text.encode())
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}; free space or repair the disk",
            errno=error.errno,
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds. Reads the disk.

    Raises:
        StateError: It cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise StateError(
            f"{path} cannot be read: {error.strerror or error}", errno=error.errno
        ) from error
    except ValueError as error:
        raise StateError(f"{path} is damaged: {error}; restore it from a copy") from error
    if not isinstance(value, dict):
        raise StateError(f"{path} is damaged: it holds no JSON object; restore it from a copy")
    return cast("dict[str, Any]", value)
