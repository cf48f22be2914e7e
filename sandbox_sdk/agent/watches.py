"""What changes below a folder, told as it happens: a process with the guest's authority.

The kernel's queue names folders by numbers and forgets when it is full; here numbers become paths,
halves of a move one event, and what was lost is told as ``overflow``.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import Any

from sandbox_sdk.agent import inotify

MOST_FOLDERS = 8192
"""Folders that one watch follows; the kernel keeps about a kilobyte for each."""

_GONE = (errno.ENOENT, errno.ENOTDIR)
_LARGEST_READ = 64 * 1024
_OTHER_HALF_MS = 20  # the kernel queues both halves of a move at once, but a read may part them


class Watch:
    """One watched tree."""

    def __init__(
        self, path: str, tell: Callable[[dict[str, Any]], None], *, recursive: bool
    ) -> None:
        """Begin to watch.

        Args:
            path: A folder, or a file, whose folder is watched for it.
            tell: Called with each event.
            recursive: Whether folders below are watched, new ones too.

        Raises:
            OSError: It is missing or cannot be read, or there are too many folders.
        """
        root = os.path.abspath(os.fsencode(path))
        self._only: bytes | None = None
        if not os.path.isdir(root):
            os.lstat(root)
            root, self._only = os.path.split(root)
        self._root = root
        self._recursive = recursive and self._only is None
        self._tell = tell
        self._queue = inotify.open_queue()
        self._folders: dict[int, bytes] = {}
        self._half: tuple[int, bytes, bool] | None = None  # cookie, path, whether a folder
        self._found: set[bytes] = set()  # told when their new folder was read; not told again
        self._last: dict[str, Any] | None = None
        self._unread: list[bytes] = []
        self._follow(root)

    def run(self) -> None:
        """Tell events until the folder itself is gone."""
        self._say("started", self._root, is_folder=self._only is None)
        for path in self._unread:
            self._say("overflow", path, is_folder=True)
        waiting = select.poll()
        waiting.register(self._queue, select.POLLIN)
        while True:
            if not waiting.poll(_OTHER_HALF_MS if self._half else None):
                self._end_half()
                continue
            for event in inotify.parse(os.read(self._queue, _LARGEST_READ)):
                if not self._take(event):
                    return
            if not waiting.poll(0):
                self._found.clear()

    def _take(self, event: inotify.Event) -> bool:
        """Tell one event; return whether there is still something to watch."""
        if self._half and event.cookie != self._half[0]:
            self._end_half()  # and what was moved away is no more followed
        if event.mask & inotify.Q_OVERFLOW:
            self._say("overflow", self._root, is_folder=True)
            self._follow_anew()
            return True
        folder = self._folders.get(event.watch)
        if folder is None:
            return True
        if event.mask & (inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.IGNORED):
            return self._take_own(event, folder)
        path = os.path.join(folder, event.name)
        if self._only is not None and event.name != self._only:
            return True
        self._take_entry(event, path, is_folder=bool(event.mask & inotify.ISDIR))
        return True

    def _take_own(self, event: inotify.Event, folder: bytes) -> bool:
        """Take what happened to a watched folder itself; others' are told by their parents."""
        if event.mask & inotify.IGNORED:
            del self._folders[event.watch]
        elif folder == self._root:
            self._say("removed", folder, is_folder=True)
            return False
        return True

    def _take_entry(self, event: inotify.Event, path: bytes, *, is_folder: bool) -> None:
        if event.mask & inotify.MOVED_FROM:
            self._half = event.cookie, path, is_folder
        elif event.mask & inotify.MOVED_TO and self._half:
            _, old, _ = self._half
            self._half = None
            self._say("moved", path, is_folder=is_folder, old=old)
            self._rename(old, path)
        elif event.mask & (inotify.CREATE | inotify.MOVED_TO):
            if path in self._found:
                return
            self._say("created", path, is_folder=is_folder)
            if is_folder and self._recursive:
                self._enter(path)
        elif event.mask & inotify.DELETE:
            self._say("removed", path, is_folder=is_folder)
        elif event.mask & inotify.MODIFY:
            self._say("modified", path, is_folder=is_folder)

    def _end_half(self) -> None:
        """Tell a move that led out of what is watched."""
        if self._half is not None:
            _, path, is_folder = self._half
            self._half = None
            self._say("removed", path, is_folder=is_folder)
            self._forget(path)

    def _say(self, kind: str, path: bytes, *, is_folder: bool, old: bytes | None = None) -> None:
        event = {"kind": kind, "path": _shown(path), "is_folder": is_folder}
        if old is not None:
            event["old_path"] = _shown(old)
        if kind == "modified" and event == self._last:
            return  # told, and nothing else since
        self._last = event
        self._tell(event)

    def _follow(self, folder: bytes) -> None:
        """Watch a folder and, if asked to, all below it.

        Raises:
            OSError: The folder itself cannot be watched, or there are too many.
        """
        todo = [folder]
        while todo:
            path = todo.pop()
            try:
                self._add(path)
                if self._recursive:
                    with os.scandir(path) as entries:
                        todo += [
                            each.path for each in entries if each.is_dir(follow_symlinks=False)
                        ]
            except OSError as error:
                if path == folder or error.errno in (errno.ENOSPC, errno.ENOMEM):
                    raise
                if error.errno not in _GONE:
                    self._unread.append(path)

    def _add(self, path: bytes) -> None:
        if len(self._folders) >= MOST_FOLDERS:
            raise OSError(errno.ENOSPC, f"more than {MOST_FOLDERS} folders to watch")
        self._folders[inotify.add(self._queue, path, follow=path == self._root)] = path

    def _enter(self, folder: bytes) -> None:
        """Watch a new folder, and tell what is in it already."""
        todo = [folder]
        while todo:
            path = todo.pop()
            try:
                self._add(path)
                with os.scandir(path) as entries:
                    for entry in entries:
                        is_folder = entry.is_dir(follow_symlinks=False)
                        self._found.add(entry.path)
                        self._say("created", entry.path, is_folder=is_folder)
                        if is_folder:
                            todo.append(entry.path)
            except OSError as error:
                if error.errno not in _GONE:  # nothing of it will be told from here on
                    self._say("overflow", path, is_folder=True)

    def _rename(self, old: bytes, new: bytes) -> None:
        """Give the watches of a moved folder their new paths."""
        for watch, path in self._folders.items():
            if path == old or path.startswith(old + b"/"):
                self._folders[watch] = new + path[len(old) :]

    def _forget(self, folder: bytes) -> None:
        """Watch no more what was moved out of reach."""
        for watch, path in list(self._folders.items()):
            if path == folder or path.startswith(folder + b"/"):
                del self._folders[watch]
                inotify.remove(self._queue, watch)

    def _follow_anew(self) -> None:
        """Look at the whole tree again: the lost events may have changed every path."""
        before, self._folders = self._folders, {}
        try:
            self._follow(self._root)
        except OSError:
            self._folders = before  # told as an overflow already; the next one tries again
            return
        for watch in before.keys() - self._folders.keys():
            inotify.remove(self._queue, watch)


def _shown(path: bytes) -> str:
    """Return a path as text; names are bytes to the kernel, what is no UTF-8 is shown."""
    return path.decode("utf-8", "backslashreplace")
