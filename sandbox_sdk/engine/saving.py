"""A workspace in memory, put back from the state folder at a start and saved to it at the end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs

from sandbox_sdk.engine import reaper

_DEEPEST = 128
_MOST_NAMED = 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def restore(saved: Path, live: Path, owner: int | None) -> None:
    """Copy what was saved into an empty workspace, before any code runs in it.

    Args:
        saved: The folder in the state folder; it stays as it is.
        live: The workspace as this process reaches it.
        owner: The uid and gid that the copies get; ``None`` is this process's own.

    Raises:
        OSError: It does not fit, or cannot be read.
    """
    _Copy(owner).tree(saved, live)


def save(live: Path, saved: Path) -> tuple[str, ...]:
    """Replace what was saved by what is in the workspace now, after all its code has ended.

    Args:
        live: The workspace as this process reaches it.
        saved: The folder in the state folder.

    Returns:
        The files left out, with the reason: what is no file, folder or link, or lies too deep.

    Raises:
        OSError: It cannot be written; what was saved before stays.
    """
    fresh, former = saved.with_name("workspace.new"), saved.with_name("workspace.old")
    for folder in (fresh, former):
        reaper.remove_tree(folder)
    fresh.mkdir(mode=0o700)
    copy = _Copy(None)
    try:
        live.chmod(0o700)  # code inside may have shut it
        copy.tree(live, fresh)
    except OSError:
        reaper.remove_tree(fresh)
        raise
    saved.rename(former)
    fresh.rename(saved)
    reaper.remove_tree(former)
    return tuple(copy.left_out)


@attrs.define
class _Copy:
    """One copy of a tree that nobody else changes; links are copied, never followed."""

    owner: int | None
    left_out: list[str] = attrs.field(factory=list[str])
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
            else:
                self._leave(inner, "is no file, folder or link")

    def _subfolder(
        self, source: int, target: int, name: str, path: str, info: os.stat_result
    ) -> None:
        if path.count("/") >= _DEEPEST:
            self._leave(path, f"lies more than {_DEEPEST} folders deep")
            return
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

    def _leave(self, path: str, why: str) -> None:
        if len(self.left_out) < _MOST_NAMED:
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            self.left_out.append(f"{shown} {why}")


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
