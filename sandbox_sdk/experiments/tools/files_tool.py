"""The tool ``files``: the model reads, writes, edits and lists files of its workspace."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import anyio

from sandbox_sdk.errors import FileError
from sandbox_sdk.experiments.results.result import ToolError
from sandbox_sdk.experiments.tools.tool_run import ToolRun
from sandbox_sdk.values import MIB, Ended, EndKind, FileInfo, Workplace, WorkspaceFiles

LARGEST_FILE = 4 * MIB
"""The largest file that the model can read or edit with this tool."""

_ERRORS = {
    errno.ENOENT: "file_not_found",
    errno.EISDIR: "is_a_directory",
    errno.ENOTDIR: "not_a_directory",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.EROFS: "permission",
    errno.EFBIG: "limit",
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
}

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "read": (),
    "write": ("content",),
    "edit": ("old", "new"),
    "list": (),
}

_OK = Ended(kind=EndKind.OK)


class _Refused(Exception):
    """A call that cannot be done, for a reason that the model may mend."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.error = ToolError(type=kind, message=message)


class FilesTool:
    """Works on files without a shell: what is written needs no quoting, what fails says why."""

    name = "files"
    parallel = False
    description = (
        "Work on text files of the sandbox. read: the file, or its lines from first_line to "
        "last_line, counted from 1. write: put content into the file, in place of what is there. "
        "edit: replace the text old, which must stand in the file exactly once, by new. list: what "
        "is in the folder. Paths are relative to the workspace, or absolute."
    )
    # Any: a JSON schema.
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": list(_NEEDS)},
            "path": {"type": "string"},
            "content": {"type": "string"},
            "old": {"type": "string"},
            "new": {"type": "string"},
            "first_line": {"type": "integer"},
            "last_line": {"type": "integer"},
        },
        "required": ["action", "path"],
        "additionalProperties": False,
    }

    async def run(
        self, workplace: Workplace, arguments: Mapping[str, Any], timeout: float | None
    ) -> ToolRun:
        """Do what is asked; what the kernel refuses is a result for the model.

        Raises:
            SandboxEnded: The sandbox died.
        """
        try:
            with anyio.move_on_after(timeout):
                return ToolRun(text=await _do(workplace.files, arguments), ended=_OK)
        except FileError as error:
            kind = _ERRORS.get(error.errno or 0, "unknown")
            return _failed(ToolError(type=kind, message=error.message))
        except _Refused as refused:
            return _failed(refused.error)
        ended = Ended(kind=EndKind.TIMEOUT, limit="timeout", limit_value=timeout)
        return ToolRun(text="", ended=ended, error=ToolError(type="timeout", message=str(ended)))


async def _do(files: WorkspaceFiles, given: Mapping[str, Any]) -> str:
    action, path = given["action"], given["path"]
    if missing := [name for name in _NEEDS[action] if name not in given]:
        raise _Refused("parsing", f'{action} needs "{missing[0]}"')
    match action:
        case "read":
            text = await _read(files, path)
            return _lines(text, given.get("first_line"), given.get("last_line"))
        case "write":
            await files.write(path, given["content"])
            return f"wrote {len(given['content'].encode()):,} bytes to {path}"
        case "edit":
            text = await _read(files, path)
            await files.write(path, _edited(text, path, given["old"], given["new"]))
            return f"edited {path}"
        case _:
            entries = await files.list(path)
            return "\n".join(map(_entry, entries)) or "[empty]"


async def _read(files: WorkspaceFiles, path: str) -> str:
    data = await files.read(path, max_bytes=LARGEST_FILE)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _Refused(
            "unicode_decode", f"{path} holds bytes that are no UTF-8 text; use a program to read it"
        ) from None


def _lines(text: str, first: int | None, last: int | None) -> str:
    if first is None and last is None:
        return text
    lines = text.splitlines(keepends=True)
    start = 1 if first is None else first
    end = len(lines) if last is None else last
    if start < 1 or start > len(lines) or end < start:
        asked = f"from {start} to {end}" if last is not None else f"from {start} on"
        said = f"there are no lines {asked}: the file has {len(lines)}, counted from 1"
        raise _Refused("out_of_range", said)
    return "".join(lines[start - 1 : end])


def _edited(text: str, path: str, old: str, new: str) -> str:
    times = text.count(old) if old else 0
    if times != 1:
        found = "is empty" if not old else f"stands {times} times in {path}"
        raise _Refused(
            "no_match", f'"old" {found}; it must stand there exactly once, with its spaces'
        )
    return text.replace(old, new)


def _entry(info: FileInfo) -> str:
    name = info.path.rsplit("/", 1)[-1]
    if info.kind == "directory":
        return f"{name}/"
    if info.kind == "symlink":
        return f"{name} -> {info.target}"
    return f"{name} ({info.size_bytes:,} bytes)"


def _failed(error: ToolError) -> ToolRun:
    return ToolRun(text="", error=error)
