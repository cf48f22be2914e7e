"""A workspace in memory, put back from the state folder at a start and saved to it at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from sandbox_sdk.crypto_utils import DataKey, Label, seal_pieces, unseal_stream
from sandbox_sdk.durable import write_stream_durably
from sandbox_sdk.engine import packing, reaper

_MOST_NAMED = 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sealed_path(saved: Path) -> Path:
    """Return the file that holds a saved workspace sealed, beside its folder."""
    return saved.with_name("workspace.sealed")


def restore(
    saved: Path, live: Path, owner: int | None, key: Callable[[], DataKey], sandbox_id: str
) -> None:
    """Put what was saved into an empty workspace, before any code runs in it.

    Args:
        saved: The folder in the state folder, with the files that it was made with; what was
            saved since lies sealed beside it. Both stay as they are.
        live: The workspace as this process reaches it.
        owner: The uid and gid that the copies get; ``None`` is this process's own.
        key: Returns the key that the workspace was sealed with.
        sandbox_id: Whose it is.

    Raises:
        IntegrityError: It was changed or cut short, or is another sandbox's.
        OSError: It does not fit, or cannot be read.
    """
    try:
        file = sealed_path(saved).open("rb")
    except FileNotFoundError:
        _Copy(owner).tree(saved, live)
        return
    with file:
        packing.unpack(unseal_stream(key(), file, _label(sandbox_id)), live, owner)


def save(live: Path, saved: Path, key: Callable[[], DataKey], sandbox_id: str) -> tuple[str, ...]:
    """Replace what was saved by what is in the workspace now, after all its code has ended.

    Nothing of it comes to the disk in clear. Of an empty workspace nothing is kept, nor is the key
    asked for.

    Args:
        live: The workspace as this process reaches it.
        saved: The folder in the state folder, beside which it lies sealed.
        key: Returns the key to seal it with.
        sandbox_id: Whose it is.

    Returns:
        The files left out, with the reason: what is no file, folder or link, or lies too deep.

    Raises:
        OSError: It cannot be written; what was saved before stays.
    """
    left_out: list[str] = []
    live.chmod(0o700)  # code inside may have shut it
    if os.listdir(live):
        packed = packing.pack(live, lambda path, why: _note(left_out, path, why))
        pieces = seal_pieces(key(), packed, _label(sandbox_id))
        write_stream_durably(sealed_path(saved), lambda file: file.writelines(pieces))
    else:
        sealed_path(saved).unlink(missing_ok=True)
    # The files that it was made with lie there in clear.
    former = saved.with_name("workspace.old")
    reaper.remove_tree(former)
    saved.rename(former)
    saved.mkdir(mode=0o700)
    reaper.remove_tree(former)
    return tuple(left_out)


def open_saved(saved: Path, path: str, key: DataKey, sandbox_id: str) -> int:
    """Return a descriptor of a file in memory with the content of one that is saved sealed.

    Raises:
        IntegrityError: What was saved was changed, or is another sandbox's.
        OSError: There is no such file.
    """

    def stream() -> Iterator[bytes]:
        with sealed_path(saved).open("rb") as file:
            yield from unseal_stream(key, file, _label(sandbox_id))

    return packing.open_file(stream, path)


def _label(sandbox_id: str) -> Label:
    return Label(type="workspace", id=sandbox_id, sandbox=sandbox_id)


@attrs.define
class _Copy:
    """One copy of a tree that nobody else changes; links are copied, never followed."""

    owner: int | None
    _linked: dict[int, str] = attrs.field(factory=dict[int, str])
    _root: int = -1

    def tree(self, source: Path, target: Path) -> None:
        # Both may be names below /proc/self/fd, so the last part is followed.
        here = os.open(source, _FOLDER & ~os.O_NOFOLLOW)
        try:
            self._root = os.open(target, _FOLDER & ~os.O_NOFOLLOW)
            try:
                self._folder(here, self._root, "")
            finally:
                os.close(self._root)
        finally:
            os.close(here)

    def _folder(self, source: int, target: int, path: str) -> None:
        for name in os.listdir(source):
            inner = f"{path}/{name}" if path else name
            info = os.lstat(name, dir_fd=source)
            if stat.S_ISDIR(info.st_mode):
                self._subfolder(source, target, name, inner, info)
            elif stat.S_ISREG(info.st_mode):
                self._file(source, target, name, inner, info)
            elif stat.S_ISLNK(info.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                self._give(name, target)

    def _subfolder(
        self, source: int, target: int, name: str, path: str, info: os.stat_result
    ) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        # Its owner may have shut it.
        os.chmod(name, 0o700 | stat.S_IMODE(info.st_mode), dir_fd=source)
        there = os.open(name, _FOLDER, dir_fd=source)
        try:
            here = os.open(name, _FOLDER, dir_fd=target)
            try:
                self._folder(there, here, path)
                self._finish(here, info)
            finally:
                os.close(here)
        finally:
            os.close(there)

    def _file(self, source: int, target: int, name: str, path: str, info: os.stat_result) -> None:
        if info.st_nlink > 1 and (first := self._linked.get(info.st_ino)):
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=target)
            return
        there = os.open(name, _FILE, dir_fd=source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            here = os.open(name, flags, 0o600, dir_fd=target)
            try:
                _pour(there, here, info.st_size)
                self._finish(here, info)
            finally:
                os.close(here)
        finally:
            os.close(there)
        if info.st_nlink > 1:
            self._linked[info.st_ino] = path

    def _finish(self, copy: int, info: os.stat_result) -> None:
        if self.owner is not None:
            os.fchown(copy, self.owner, self.owner)
        os.fchmod(copy, stat.S_IMODE(info.st_mode) & 0o777)
        os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _give(self, name: str, folder: int) -> None:
        if self.owner is not None:
            os.chown(name, self.owner, self.owner, dir_fd=folder, follow_symlinks=False)


def _note(left_out: list[str], path: str, why: str) -> None:
    if len(left_out) < _MOST_NAMED:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        left_out.append(f"{shown} {why}")


def _pour(source: int, target: int, size: int) -> None:
    """Copy the content of a file, holes as holes."""
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole follows
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            at += os.sendfile(target, source, at, end - at)
