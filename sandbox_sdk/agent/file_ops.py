"""File operations, each in a forked child with the guest's authority, never the agent's.

The agent itself must not open a path that guests can shape: a link to ``/proc/self/mem`` would
lead into the agent. The child answers with one line of JSON on the result stream; file content
travels on the streams for standard input and output.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from sandbox_sdk.agent import frames, guest
from sandbox_sdk.agent.answers import encode, write_all

_CHUNK = frames.MAX_DATA
_LONGEST_LIST = 10_000


def program(
    request: dict[str, Any], settings: guest.Settings, streams: list[int]
) -> Callable[[], None]:
    """Return what the process of one file operation does."""

    def run() -> None:
        source, sink, _, results = streams
        guest.become(settings, keep=[source, sink, results])
        os.chdir(settings.workspace)
        located: dict[str, Any] = {
            name: settings.locate(request[name]) for name in ("path", "target") if name in request
        }
        try:
            reply = _OPERATIONS[request["op"]]({**request, **located}, source, sink)
        except OSError as error:
            reply = {"errno": error.errno or errno.EIO, "message": error.strerror or str(error)}
        write_all(results, encode(reply))
        os._exit(0)

    return run


def _read(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    # Not blocking: opening a pipe that nobody writes must fail, not wait.
    file = os.open(request["path"], os.O_RDONLY | os.O_NONBLOCK)
    _refuse_special(file)
    sent = 0
    while data := os.read(file, _CHUNK):
        write_all(sink, data)
        sent += len(data)
    return {"bytes": sent}


def _write(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    """Write to a new file beside the target and move it there: a reader sees old or new."""
    path = request["path"]
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    beside = f"{path}.{os.getpid()}.part"
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, request.get("mode", 0o644))
    total = 0
    try:
        while data := os.read(source, _CHUNK):
            write_all(file, data)
            total += len(data)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    return {"bytes": total}


def _list(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    base = request["path"]
    found: list[dict[str, Any]] = []
    with os.scandir(base) as entries:
        for entry in entries:
            if len(found) == _LONGEST_LIST:
                return {"entries": _sorted(found), "complete": False}
            found.append(_describe(os.path.join(base, entry.name)))
    return {"entries": _sorted(found), "complete": True}


def _find(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    """Tell each matching path, a line of JSON each, and why it is no file, if it is none.

    So it does of a folder that stays shut, as what is in there might have matched.
    """
    import re  # in the child that needs it: the agent starts sooner without

    wanted = re.compile(request["pattern"])
    top: str = request["path"]
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            path = os.path.relpath(folder, top)
            why = f"cannot be opened: {error.strerror}"
            write_all(sink, encode({"path": "./" if path == "." else f"{path}/", "why": why}))
            continue
        for entry in entries:
            path = os.path.relpath(entry.path, top)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif wanted.fullmatch(path):
                why = "" if entry.is_file(follow_symlinks=False) else "not a regular file"
                write_all(sink, encode({"path": path, "why": why}))
    return {}


def _stat(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    return _describe(request["path"])


def _remove(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    import shutil  # in the child that needs it: the agent starts sooner without

    path = request["path"]
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path) if request.get("recursive") else os.rmdir(path)
    else:
        os.unlink(path)
    return {}


def _move(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    os.makedirs(os.path.dirname(request["target"]) or ".", exist_ok=True)
    os.replace(request["path"], request["target"])
    return {}


def _make_dir(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    os.makedirs(request["path"], exist_ok=True)
    return {}


def _watch(request: dict[str, Any], source: int, sink: int) -> dict[str, Any]:
    """Tell each change as a line of JSON, until the folder is gone or the host ends this."""
    from sandbox_sdk.agent import watches  # in the child that needs it, as above

    def tell(event: dict[str, Any]) -> None:
        write_all(sink, encode(event))

    watches.Watch(request["path"], tell, recursive=request["recursive"]).run()
    return {}


_OPERATIONS: dict[str, Callable[[dict[str, Any], int, int], dict[str, Any]]] = {
    "read": _read,
    "write": _write,
    "list": _list,
    "find": _find,
    "stat": _stat,
    "remove": _remove,
    "move": _move,
    "make_dir": _make_dir,
    "watch": _watch,
}


def _describe(path: str) -> dict[str, Any]:
    info = os.lstat(path)
    kind = "other"
    if stat.S_ISREG(info.st_mode):
        kind = "file"
    elif stat.S_ISDIR(info.st_mode):
        kind = "directory"
    elif stat.S_ISLNK(info.st_mode):
        kind = "symlink"
    return {
        # Names are bytes to the kernel; what is not UTF-8 is shown, not lost.
        "path": os.fsencode(os.path.abspath(path)).decode("utf-8", "backslashreplace"),
        "kind": kind,
        "size_bytes": info.st_size if kind == "file" else 0,
        "mode": stat.S_IMODE(info.st_mode),
        "modified_at": info.st_mtime,
        "target": os.fsencode(os.readlink(path)).decode("utf-8", "backslashreplace")
        if kind == "symlink"
        else None,
    }


def _sorted(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: entry["path"])


def _refuse_special(file: int) -> None:
    mode = os.fstat(file).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
