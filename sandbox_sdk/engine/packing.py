"""A workspace as one stream of bytes, so that it can be sealed without touching a disk in clear.

A stream is items: four bytes of length, a JSON object, and for a file the bytes of its parts. A
folder's items follow it, up to one of the kind ``up``. What is read was written here and is proven
by its seal, and lands in an empty workspace before any code runs in it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

DEEPEST = 128
"""Folders of a workspace that lie deeper are left out."""

_CHUNK = 64 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# Any: an item is JSON, whose shape its kind decides.
_Item = dict[str, Any]


def pack(live: Path, leave: Callable[[str, str], None]) -> Iterator[bytes]:
    """Yield a tree that nobody else changes; links are told, never followed.

    Args:
        live: The workspace.
        leave: Told the path of what is left out, and why.

    Raises:
        OSError: It cannot be read.
    """
    # May be a name below /proc/self/fd, so the last part is followed.
    root = os.open(live, _FOLDER & ~os.O_NOFOLLOW)
    try:
        yield from _Packing(leave).folder(root, "")
    finally:
        os.close(root)
    yield _encoded("end")


def unpack(stream: Iterator[bytes], live: Path, owner: int | None) -> None:
    """Make the tree of a stream in an empty workspace.

    Args:
        stream: What ``pack`` yielded, in pieces of any length.
        live: The workspace.
        owner: The uid and gid that all of it gets; ``None`` is this process's own.

    Raises:
        OSError: It does not fit.
    """
    root = os.open(live, _FOLDER & ~os.O_NOFOLLOW)
    try:
        reader = _Reader(stream)
        _Unpacking(reader, root, owner).folder(root)
        reader.finish()
    finally:
        os.close(root)


def open_file(stream: Callable[[], Iterator[bytes]], path: str) -> int:
    """Return a descriptor of a file in memory with the content of one file of a stream.

    Args:
        stream: Begins the stream.
        path: The file's path in the workspace.

    Raises:
        OSError: It is missing, or no regular file.
    """
    reader = _Reader(stream())
    above: list[str] = []
    while (item := reader.item())["kind"] != "end":
        here = "/".join((*above, item.get("name", "")))
        match item["kind"]:
            case "folder":
                above.append(item["name"])
            case "up":
                above.pop()
                continue
            case "file":
                target = os.memfd_create("workspace", os.MFD_CLOEXEC) if here == path else None
                reader.pour(item, target)
                if target is not None:
                    os.lseek(target, 0, os.SEEK_SET)
                    return target
            case "same" if here == path:
                return open_file(stream, item["first"])
            case _:
                pass
        if here == path:
            number = errno.EISDIR if item["kind"] == "folder" else errno.ELOOP
            raise OSError(number, "not a regular file")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


@attrs.define
class _Packing:
    """One reading of a tree."""

    leave: Callable[[str, str], None]
    _first: dict[int, str] = attrs.field(factory=dict[int, str])

    def folder(self, folder: int, path: str) -> Iterator[bytes]:
        for name in os.listdir(folder):
            inner = f"{path}/{name}" if path else name
            info = os.lstat(name, dir_fd=folder)
            about: _Item = {"name": name, "mode": stat.S_IMODE(info.st_mode) & 0o777}
            about["times"] = [info.st_atime_ns, info.st_mtime_ns]
            if stat.S_ISDIR(info.st_mode):
                yield from self._subfolder(folder, inner, about)
            elif stat.S_ISREG(info.st_mode):
                yield from self._file(folder, inner, info, about)
            elif stat.S_ISLNK(info.st_mode):
                yield _encoded("link", to=os.readlink(name, dir_fd=folder), **about)
            else:
                self.leave(inner, "is no file, folder or link")

    def _subfolder(self, folder: int, path: str, about: _Item) -> Iterator[bytes]:
        if path.count("/") >= DEEPEST:
            self.leave(path, f"lies more than {DEEPEST} folders deep")
            return
        # Its owner may have shut it.
        os.chmod(about["name"], 0o700 | about["mode"], dir_fd=folder)
        below = os.open(about["name"], _FOLDER, dir_fd=folder)
        try:
            yield _encoded("folder", **about)
            yield from self.folder(below, path)
            yield _encoded("up")
        finally:
            os.close(below)

    def _file(self, folder: int, path: str, info: os.stat_result, about: _Item) -> Iterator[bytes]:
        if info.st_nlink > 1 and (first := self._first.get(info.st_ino)):
            yield _encoded("same", first=first, **about)
            return
        if info.st_nlink > 1:
            self._first[info.st_ino] = path
        file = os.open(about["name"], _FILE, dir_fd=folder)
        try:
            parts = list(_parts(file, info.st_size))
            yield _encoded("file", size=info.st_size, parts=parts, **about)
            for start, end in parts:
                while start < end:
                    data = os.pread(file, min(_CHUNK, end - start), start)
                    if not data:
                        raise OSError(errno.EIO, "a file ended before its end", path)
                    yield data
                    start += len(data)
        finally:
            os.close(file)


class _Reader:
    """Reads items from a stream that comes in pieces of any length."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._buffer = b""

    def item(self) -> _Item:
        length = int.from_bytes(self._take(4), "big")
        item: _Item = json.loads(self._take(length))
        return item

    def pour(self, item: _Item, target: int | None) -> None:
        """Read a file's content, into a new file if there is one to take it."""
        if target is not None:
            os.ftruncate(target, item["size"])
        for start, end in item["parts"]:
            while start < end:
                data = self._take(min(_CHUNK, end - start))
                start += len(data)
                if target is not None:
                    _write(target, data, start - len(data))

    def finish(self) -> None:
        """Read on to the end, which proves that nothing was cut off."""
        for _ in self._stream:
            pass

    def _take(self, size: int) -> bytes:
        pieces, length = [self._buffer], len(self._buffer)
        while length < size:
            try:
                pieces.append(next(self._stream))
            except StopIteration:
                raise OSError(errno.EIO, "a saved workspace ends before its end") from None
            length += len(pieces[-1])
        data = b"".join(pieces)
        self._buffer = data[size:]
        return data[:size]


@attrs.define
class _Unpacking:
    """One writing of a tree."""

    reader: _Reader
    root: int
    owner: int | None

    def folder(self, folder: int) -> None:
        while (item := self.reader.item())["kind"] not in ("up", "end"):
            name = item["name"]
            match item["kind"]:
                case "folder":
                    os.mkdir(name, 0o700, dir_fd=folder)
                    below = os.open(name, _FOLDER, dir_fd=folder)
                    try:
                        self.folder(below)
                        self._finish(below, item)
                    finally:
                        os.close(below)
                case "file":
                    file = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
                    try:
                        self.reader.pour(item, file)
                        self._finish(file, item)
                    finally:
                        os.close(file)
                case "same":
                    os.link(item["first"], name, src_dir_fd=self.root, dst_dir_fd=folder)
                case _:
                    os.symlink(item["to"], name, dir_fd=folder)
                    if self.owner is not None:
                        owner = self.owner
                        os.chown(name, owner, owner, dir_fd=folder, follow_symlinks=False)

    def _finish(self, made: int, item: _Item) -> None:
        if self.owner is not None:
            os.fchown(made, self.owner, self.owner)
        os.fchmod(made, item["mode"])
        os.utime(made, ns=(item["times"][0], item["times"][1]))


def _encoded(kind: str, **about: object) -> bytes:
    # Names that are no Unicode have surrogates, which ASCII JSON keeps.
    data = json.dumps({"kind": kind, **about}, separators=(",", ":")).encode("ascii")
    return len(data).to_bytes(4, "big") + data


def _parts(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file holds data; the rest are holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # nothing but a hole follows
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, min(end, size)


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done
