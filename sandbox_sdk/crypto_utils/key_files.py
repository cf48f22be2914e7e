"""The files of the folder ``keys/``: read, listed, exported and erased without the master.

local.key                 the master, where none is configured and one was needed
local.key.next            the master to come, while a rotation has not ended
wrapped/data-<name>.json  the key of one sandbox's data, or of one purpose
wrapped/signing-<name>.json
                          the keys that sign results, and the audit log
signing.pub               what others verify signed results with
audit.vkey                what others verify the audit log with
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from pathlib import Path

from sandbox_sdk.crypto_utils.keys import VerifyKey
from sandbox_sdk.crypto_utils.wrapping import KeyKind, WrappedKey, checked_name
from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import IntegrityError, StateError

LOCAL_KEY, NEXT_KEY, PUBLIC = "local.key", "local.key.next", "signing.pub"

LARGEST_BUNDLE = 64 * 1024 * 1024
"""Bytes of the largest file of keys that is imported."""


def list_keys(folder: Path) -> list[WrappedKey]:
    """Return the wrapped keys of a folder, by their names; needs no master.

    Raises:
        IntegrityError: A file there is no wrapped key.
        StateError: The folder cannot be read.
    """
    with failing(folder):
        paths = sorted(wrapped_folder(folder).glob("*-*.json"))
        return [parse_key(path.read_bytes(), path.name) for path in paths]


def find_key(folder: Path, kind: KeyKind, name: str) -> WrappedKey | None:
    """Return one wrapped key of a folder if it was made, and ``None`` if not; needs no master.

    Raises:
        IntegrityError: It is no wrapped key.
        StateError: It cannot be read.
    """
    file_name = file_name_of(kind, name)
    with failing(folder):
        try:
            data = (wrapped_folder(folder) / file_name).read_bytes()
        except FileNotFoundError:
            return None
        return parse_key(data, file_name)


def erase_key(folder: Path, name: str) -> bool:
    """Remove the key of one sandbox's data for good, and return whether there was one.

    Needs no master. Copies that others made, or that a disk keeps of deleted files, are not
    reached; without the master they open nothing.

    Raises:
        StateError: It cannot be removed.
    """
    with failing(folder):
        try:
            (wrapped_folder(folder) / file_name_of("data", name)).unlink()
        except FileNotFoundError:
            return False
        sync_folder(wrapped_folder(folder))
        return True


def read_public(folder: Path) -> VerifyKey | None:
    """Return the public key of a folder's signed results, if one was made; needs no master.

    Raises:
        ConfigError: The file was changed.
        StateError: It cannot be read.
    """
    with failing(folder):
        try:
            return VerifyKey.parse((folder / PUBLIC).read_text("ascii", "replace"))
        except FileNotFoundError:
            return None


def export_keys(folder: Path, target: Path) -> int:
    """Write all wrapped keys into one new file, still wrapped, and return how many they are.

    Raises:
        StateError: The file exists, or cannot be written.
        IntegrityError: A file in the folder is no wrapped key.
    """
    keys = list_keys(folder)
    with failing(target):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "w") as file:
            json.dump({"keys": [wrapped.to_json() for wrapped in keys]}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    return len(keys)


def parse_key(data: bytes, file_name: str) -> WrappedKey:
    """Return the wrapped key that a file's content is.

    Raises:
        IntegrityError: It is none, or is not the one of that file's name.
    """
    try:
        wrapped = WrappedKey.from_bytes(data)
    except IntegrityError as error:
        raise IntegrityError(f"{file_name}: {error.message}") from error
    if wrapped.file_name != file_name:
        raise IntegrityError(f"{file_name} holds the key {wrapped.file_name}: it was moved")
    return wrapped


def read_bundle(path: Path) -> list[WrappedKey]:
    """Return the keys of a file that ``export_keys()`` wrote.

    Raises:
        IntegrityError: It is none.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(LARGEST_BUNDLE + 1)
    try:
        parsed: dict[str, list[object]] = json.loads(data)
        return [WrappedKey.from_json(key) for key in parsed["keys"]]
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error.message}", path=str(path)) from error
    except (ValueError, RecursionError, KeyError, TypeError):
        raise IntegrityError(f"{path} is no file of exported keys", path=str(path)) from None


def wrapped_folder(folder: Path) -> Path:
    """Return where the wrapped keys are."""
    return folder / "wrapped"


def file_name_of(kind: KeyKind, name: str) -> str:
    """Return the name of a wrapped key's file.

    Raises:
        ConfigError: The name cannot be part of a file's.
    """
    return f"{kind}-{checked_name(name)}.json"


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None]:
    """Let one process at a time change the folder."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def failing(path: Path) -> Generator[None]:
    """Turn what the kernel refuses into a ``StateError``."""
    try:
        yield
    except StateError:
        raise
    except OSError as error:
        raise StateError(
            f"the keys at {error.filename or path} cannot be read or written: "
            f"{error.strerror or error}; free space, or correct its permissions",
            errno=error.errno,
        ) from error
