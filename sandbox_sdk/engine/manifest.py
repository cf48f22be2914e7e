"""What lies in a tree of files: how much, whether it looks untouched, and its digest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class Manifest:
    """What a look at every file's metadata tells of a tree.

    Attributes:
        files: How many files and links.
        size_bytes: The files' sizes together.
        sha256: The digest of all paths, kinds, sizes and times of change.
    """

    files: int
    size_bytes: int
    sha256: str


def look(folder: Path) -> Manifest:
    """Return the manifest of a tree; no file is read. Blocks.

    Raises:
        OSError: A folder cannot be listed.
    """
    files = size = 0
    sha256 = hashlib.sha256()
    for path, found in _walk(folder):
        files += 1
        size += found.st_size
        kind = stat.S_IFMT(found.st_mode)
        sha256.update(_line(path, kind, found.st_size, found.st_mtime_ns))
    return Manifest(files=files, size_bytes=size, sha256=sha256.hexdigest())


def digest(folder: Path) -> str:
    """Return the SHA-256 of a tree: of every path, mode and content, links as they say. Blocks.

    Raises:
        OSError: Something cannot be read.
    """
    sha256 = hashlib.sha256()
    for path, found in _walk(folder):
        full = folder / path
        if stat.S_ISLNK(found.st_mode):
            content = hashlib.sha256(os.fsencode(os.readlink(full))).hexdigest()
        else:
            with full.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        sha256.update(_line(path, found.st_mode, content))
    return sha256.hexdigest()


def _walk(folder: Path) -> Generator[tuple[str, os.stat_result]]:
    """Yield every file and link by its path below the folder, in one order everywhere."""
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in sorted([*files, *links]):
            full = os.path.join(parent, name)
            yield os.path.relpath(full, folder), os.lstat(full)


def _line(path: str, *facts: object) -> bytes:
    # No path holds a NUL, so that no two trees give the same lines.
    return b"\0".join([os.fsencode(path), *(str(fact).encode() for fact in facts), b""])


def _refuse(error: OSError) -> None:
    raise error
