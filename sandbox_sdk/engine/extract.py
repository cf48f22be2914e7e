"""Bytes out of a workspace that hostile code shaped: by descriptor, never through a link.

Every open goes through ``openat2`` from the workspace's own descriptor and may neither leave it
nor cross a link; every read is bounded; only regular files leave. What does not is listed with
the reason.
"""

from __future__ import annotations

import errno
import hashlib
import mimetypes
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from sandbox_sdk.isolation.walls import kernel
from sandbox_sdk.values import GIB, Artifact, Collected, Shelf

_RESOLVE = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_CHUNK = 1024 * 1024
_MOST_NAMED = 1000
_GAPS = {"": "", "**/": "(?:.*?/)??", "**": ".*?"}


@attrs.frozen(kw_only=True)
class Bounds:
    """How much one collection may copy.

    Attributes:
        files: Files copied.
        bytes: Bytes copied in all.
        entries: Names looked at.
    """

    files: int = 1000
    bytes: int = GIB
    entries: int = 1_000_000


def collect(
    workspace: Path,
    patterns: Sequence[str],
    destination: Path | Shelf,
    bounds: Bounds | None = None,
) -> Collected:
    """Copy the regular files that match into ``destination/sha256/ab/cdef...`` or a shelf.

    Args:
        workspace: The workspace on the host.
        patterns: Paths relative to it; ``*`` and ``?`` stay within one name, ``**`` crosses.
        destination: The content-addressed folder, made if it is missing, or what keeps them.
        bounds: How much to copy at most.

    Raises:
        OSError: The destination cannot be written.
    """
    limits = bounds or Bounds()
    shelf = shelf_of(destination)
    wanted = re.compile(expression(patterns))
    artifacts: list[Artifact] = []
    skipped: dict[str, str] = {}
    left = limits.bytes

    def skip(path: str, reason: str) -> None:
        if len(skipped) < _MOST_NAMED:
            skipped[shown(path)] = reason
        else:
            skipped["..."] = f"more than {_MOST_NAMED} files were left out"

    try:
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:  # code inside shut its own workspace
        return Collected(skipped={"./": f"cannot be opened: {error.strerror}"})
    try:
        for number, (path, reason) in enumerate(_walk(root)):
            if number >= limits.entries:
                skip("...", f"more than {limits.entries} names in the workspace")
                break
            # What is in a folder that stays closed might have matched.
            if not (wanted.fullmatch(path) or path.endswith("/")):
                continue
            if reason:
                skip(path, reason)
            elif len(artifacts) >= limits.files:
                skip(path, f"more than {limits.files} files match")
            else:
                try:
                    artifact = _copy(root, path, shelf, left)
                except _Skip as why:
                    skip(path, str(why))
                    continue
                left -= artifact.size_bytes
                artifacts.append(artifact)
    finally:
        os.close(root)
    return Collected(artifacts=tuple(artifacts), skipped=skipped)


def shelf_of(destination: Path | Shelf) -> Shelf:
    """Return what keeps files in a content-addressed folder, or the shelf that is given."""
    return _Folder(destination) if isinstance(destination, Path) else destination


def expression(patterns: Sequence[str]) -> str:
    """Return the regular expression of all paths that match one of the patterns of ``collect``."""
    return "|".join(map(_regex, patterns)) or "(?!)"


def open_file(workspace: Path, path: str) -> int:
    """Open a regular file of a workspace for reading and return the descriptor.

    Raises:
        OSError: It is missing, no regular file, or reached through a link or out of the workspace.
    """
    root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = kernel.openat2(root, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, _RESOLVE)
    finally:
        os.close(root)
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, "not a regular file")
    return file


class _Skip(Exception):
    """This file does not leave, for this reason."""


def _walk(root: int) -> Iterator[tuple[str, str]]:
    """Yield relative paths and why each cannot be copied, if so; of folders, those that stay shut.

    Their paths end in ``/``.
    """
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            descriptor = kernel.openat2(
                root, folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, _RESOLVE
            )
        except OSError as error:
            yield f"{folder}/", f"cannot be opened: {error.strerror}"
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        yield path, ""
                    else:
                        yield path, "not a regular file"
        finally:
            os.close(descriptor)


@attrs.frozen
class _Folder:
    """Keeps files under their digest.

    Attributes:
        path: The folder, made if it is missing.
    """

    path: Path

    def keep(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        self.path.mkdir(parents=True, exist_ok=True)
        beside, name = tempfile.mkstemp(dir=self.path)
        try:
            digest, size = _pour(pieces, beside)
            target = self.path / "sha256" / digest[:2] / digest[2:]
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
        finally:
            os.close(beside)
        return digest, size


def _copy(root: int, path: str, shelf: Shelf, left: int) -> Artifact:
    """Copy one file under its digest; what it is is decided by the open descriptor alone."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        source = kernel.openat2(root, path, flags, _RESOLVE)
    except OSError as error:
        word = "is a link" if error.errno in (errno.ELOOP, errno.EXDEV) else error.strerror
        raise _Skip(f"cannot be opened: {word}") from error
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise _Skip("not a regular file")
        digest, size = shelf.keep(_pieces(source, left))
    finally:
        os.close(source)
    media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return Artifact(path=shown(path), size_bytes=size, sha256=digest, media_type=media_type)


def _pieces(source: int, left: int) -> Iterator[bytes]:
    """Yield a file to its end or to the bound, whichever is first; it may grow meanwhile."""
    size = 0
    while data := os.read(source, _CHUNK):
        size += len(data)
        if size > left:
            raise _Skip("larger than what may still be copied")
        yield data


def _pour(pieces: Iterable[bytes], target: int) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    for data in pieces:
        size += len(data)
        digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
    os.fsync(target)
    return digest.hexdigest(), size


def _regex(pattern: str) -> str:
    """A glob as a regular expression: ``**`` crosses folders, ``*`` and ``?`` do not.

    Names are hostile: what stands before a wildcard is settled where it first matches, or one long
    name would be tried in more ways than there is time for.
    """
    bare = pattern.removeprefix("./").removeprefix("/workspace/")
    first, *rest = re.split(r"(\*\*/|\*\*)", bare)
    gaps, blocks = ["", *rest[::2]], [first, *rest[1::2]]
    found: list[str] = []
    for gap, block, following in zip(gaps, blocks, [*gaps[1:], ""], strict=True):
        text = _GAPS[gap] + _block(block)
        # Behind no slash a folder's name may only go on: an earlier match is then another.
        is_settled = following == "**" or (following == "**/" and block.endswith("/"))
        found.append(f"(?>{text})" if is_settled else text)
    return f"(?s:{''.join(found)})"


def _block(block: str) -> str:
    """The part of a glob between what crosses folders."""
    first, *rest = block.split("*")
    found = [_plain(first)]
    for number, part in enumerate(rest, 1):
        text = f"[^/]*?{_plain(part)}"
        is_settled = number < len(rest) and "/" not in part
        found.append(f"(?>{text})" if is_settled else text)
    return "".join(found)


def _plain(text: str) -> str:
    return "[^/]".join(map(re.escape, text.split("?")))


def shown(path: str) -> str:
    """Return a name that guests chose as text that can be stored: undecodable bytes escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
