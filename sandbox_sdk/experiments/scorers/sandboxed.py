"""What scorers share that run something in a fresh sandbox: its settings, its files, its verdicts.

A sandbox of a scorer never held the model's tools or processes. It gets the submission's declared
artifacts and the scorer's own files, and where both have a path the scorer's wins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any, Literal, cast

from sandbox_sdk.config import Settings
from sandbox_sdk.errors import ConfigError, SandboxEnded
from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers.base import SandboxMaker, Submission
from sandbox_sdk.experiments.scorers.blocks import last_block
from sandbox_sdk.parse import Faults, fault, suggestion
from sandbox_sdk.spec import parse_spec
from sandbox_sdk.values import CommandResult, EndKind, Workplace

Content = Literal["code", "output"]
"""What of the output becomes a file: its last fenced block if there is one, or all of it."""

_OPTIONS = (
    *("resources", "timeout", "security_level", "waive", "env", "template", "packages"),
    *("preload", "runtime", "seed"),
)
_OURS = frozenset({EndKind.SANDBOX_DIED, EndKind.INFRA, EndKind.CANCELLED})
_LABELS: Mapping[EndKind, str] = {
    EndKind.NONZERO: "failed",
    EndKind.SIGNAL: "failed",
    EndKind.TIMEOUT: "timeout",
    EndKind.OOM: "oom",
    EndKind.PIDS: "limit",
    EndKind.DISK: "limit",
    EndKind.OUTPUT_LIMIT: "limit",
    EndKind.POLICY_DENIED: "policy_denied",
}


def read_sandbox(value: object, path: str) -> dict[str, Any]:
    """Read the settings of a scorer's sandbox, by ``create_sandbox``'s names.

    Raises:
        ConfigError: One is unknown or wrong; all faults at once.
    """
    found = fields.json_object(value, path)
    faults = Faults()
    for name in [name for name in found if name not in _OPTIONS]:
        faults.add(f"{path}.{name}", f"unknown key{suggestion(name, _OPTIONS)}")
        del found[name]
    if isinstance(found.get("packages"), str):
        faults.add(f"{path}.packages", "must be a list of requirements, which decide the digest")
        del found["packages"]
    try:
        # The settings in force are the client's own; these only fill what is not asked for.
        parse_spec("scorer", settings=Settings(), **cast("dict[str, Any]", found))
    except ConfigError as error:
        for line in error.faults:
            where, _, what = line.partition(": ")
            faults.add(f"{path}.{where}", what)
    faults.check()
    return found


def read_command(value: object, path: str) -> str | tuple[str, ...]:
    """Read a command: a line for bash, or a program and its arguments."""
    if isinstance(value, str):
        return fields.filled_text(value, path)
    found = fields.list_of(fields.text)(value, path)
    if not found or not found[0]:
        raise fault(path, "must be a program and its arguments, or a line for bash")
    if any("\0" in word for word in found):
        raise fault(path, "holds a NUL, which no argument can")
    return found


def read_path(value: object, path: str) -> str:
    """Read a path that stays in the workspace."""
    found = fields.line(value, path)
    parts = PurePosixPath(found).parts
    if found.startswith("/") or found.endswith("/") or ".." in parts or "." in found.split("/"):
        raise fault(path, 'must be a relative path of a file, without "." and ".."')
    return found


def read_files(value: object, path: str) -> dict[str, str | bytes]:
    """Read file path -> content, as text or bytes; all faults at once."""

    def content(item: object, where: str) -> str | bytes:
        return item if isinstance(item, bytes) else fields.text(item, where)

    found = fields.mapping_of(content)(value, path)
    faults = Faults()
    for name in found:
        with faults.collect():
            read_path(name, f"{path}.{name}")
    faults.check()
    return found


def files_of(
    submission: Submission, own: Mapping[str, str | bytes], file: str | None, content: Content
) -> dict[str, str | bytes]:
    """Return the files of a scorer's sandbox.

    Args:
        submission: Its artifacts go in, as far as none is in the way of another file.
        own: The scorer's files, which no artifact replaces.
        file: Where the output goes, unless an artifact is that file.
        content: What of the output goes there.
    """
    found: dict[str, str | bytes] = {
        path: data for path, data in submission.artifacts.items() if not _in_the_way(path, own)
    }
    if file is not None and file not in found and file not in own:
        found = {path: data for path, data in found.items() if not _in_the_way(path, [file])}
        found[file] = said(submission, content).encode("utf-8", "replace")
    return {**found, **own}


def said(submission: Submission, content: Content) -> str:
    """Return the part of the output that ``content`` means."""
    block = last_block(submission.output) if content == "code" else None
    return submission.output if block is None else block


def unusable(files: Mapping[str, str | bytes]) -> str | None:
    """Return why files cannot be put into a sandbox, which is the submission's own fault."""
    try:
        parse_spec("scorer", settings=Settings(), files=files)
    except ConfigError as error:
        return error.message
    return None


@asynccontextmanager
async def fresh(
    sandboxes: SandboxMaker | None,
    files: Mapping[str, str | bytes],
    settings: Mapping[str, Any],
) -> AsyncGenerator[Workplace, None]:
    """Give a sandbox with just these files to the block, and delete it after.

    Raises:
        SandboxError: There is none to be had.
    """
    if sandboxes is None:
        raise TypeError("this scorer needs sandboxes: pass what makes them")
    async with sandboxes.fresh(files=files, **settings) as sandbox:
        yield sandbox


async def run(
    sandbox: Workplace,
    command: str | Sequence[str],
    *,
    stdin: bytes | str | None = None,
    timeout: float,
) -> CommandResult:
    """Run a command to an end of its own, or by a limit.

    Raises:
        SandboxEnded: The sandbox died, which is nobody's answer.
    """
    result = await sandbox.run_command(command, stdin=stdin, timeout=timeout)
    if result.ended.kind in _OURS:
        raise SandboxEnded(
            f"the scorer's sandbox died: {result.ended}; score again",
            sandbox_id=sandbox.id,
            ended=result.ended,
        )
    return result


def label_of(result: CommandResult) -> str | None:
    """Return the word for how a command failed, or ``None`` if it ended ``ok``."""
    if result.ended.kind is EndKind.OK:
        return "limit" if result.ended.truncated else None
    return _LABELS.get(result.ended.kind, "failed")


def files_digest(files: Mapping[str, str | bytes]) -> dict[str, str]:
    """Return files as a scorer's digest takes them: the SHA-256 of each."""
    return {
        path: sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()
        for path, data in files.items()
    }


def _in_the_way(path: str, others: Sequence[str] | Mapping[str, object]) -> bool:
    return any(
        path == other or other.startswith(path + "/") or path.startswith(other + "/")
        for other in others
    )
