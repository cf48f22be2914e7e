"""``audit``: the log of what was done, shown, verified and copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from anyio import to_thread

from sandbox_sdk.audit.events import Line
from sandbox_sdk.audit.log import FOLDER, NOTES, VERIFIER_FILE, remembered
from sandbox_sdk.audit.notes import LARGEST_NOTE, Checkpoint, Verifier
from sandbox_sdk.audit.segments import CHECKPOINT_FILE, Segments, segment_paths
from sandbox_sdk.audit.verify import AuditVerification, verify_log
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.durable import write_durably
from sandbox_sdk.errors import ConfigError, ExportError, IntegrityError, StateError
from sandbox_sdk.store.folders import StateFolders, state_error
from sandbox_sdk.store.state import SQLiteStore

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
@global_options
def audit() -> None:
    """Show, verify and copy the log of what was done."""


@audit.command()
@click.option(
    "-n", "--lines", "count", type=click.IntRange(1), default=20, help="How many; 20 by default."
)
@global_options
def tail(count: int) -> None:
    """Show the newest events."""
    run(lambda session: _tail(session, count))


async def _tail(session: Session, count: int) -> int:
    folder = (await _folders(session)).root / FOLDER
    lines = await to_thread.run_sync(_last, folder, count)
    session.output.document({"events": [_shown(line) for line in lines]})
    if not lines:
        session.output.note(f"there is no audit log in {folder}")
    columns = ("time", "event", "subject", "who", "outcome")
    session.output.table(columns, [_row(line) for line in lines] if lines else [])
    return 0


@audit.command()
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    help="The log's public key, or a file that holds it, as `audit export --public` printed it. "
    "Without it, this state folder's own key counts, or for a PATH the one found there.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=_FILE,
    multiple=True,
    help="A copy of the file `checkpoint` that you kept: the log must still hold all it covers.",
)
@global_options
@click.argument("path", required=False, type=click.Path(file_okay=False, path_type=Path))
def verify(path: Path | None, keys: tuple[str, ...], checkpoints: tuple[Path, ...]) -> None:
    """Check that no line of the log was changed, removed, added or moved.

    PATH is a log that `audit export` wrote; without it, this state folder's own. Exits with 0 only
    if every line is as a key that you trust signed it, and names the first line that is not.
    """
    run(lambda session: _verify(session, path, keys, checkpoints))


async def _verify(
    session: Session, path: Path | None, keys: tuple[str, ...], checkpoints: tuple[Path, ...]
) -> int:
    trusted = [_given(key) for key in keys]
    notes = [_read(file, "--checkpoint") for file in checkpoints]
    known: list[Checkpoint] = []
    if path is None:
        folders = await _folders(session)
        path, beside = folders.root / FOLDER, folders.keys
        known = await _remembered(folders)
    else:
        beside = path
    pinned = bool(trusted) or path != beside
    if not trusted:
        trusted = _found(beside / VERIFIER_FILE)
    checking = partial(verify_log, path, trusted, pinned=pinned, notes=notes, known=known)
    found = await to_thread.run_sync(checking)
    session.output.document(_to_json(found))
    session.output.line(f"{found.status}: {found.folder}: {_in_words(found)}")
    return 0 if found.ok else 1


@audit.command()
@click.option("--public", is_flag=True, help="Print the log's public key, which verifies it.")
@global_options
@click.argument("path", required=False, type=click.Path(path_type=Path))
def export(path: Path | None, public: bool) -> None:
    """Copy the log, as it is now, into the new folder PATH, to be verified there or elsewhere."""
    if public == (path is not None):
        raise click.UsageError("give a PATH, or --public")
    run(lambda session: _export_public(session) if path is None else _export(session, path))


async def _export_public(session: Session) -> int:
    verifier = _own(await _folders(session))
    session.output.document({"public_key": verifier.to_text(), "name": verifier.name})
    session.output.line(verifier.to_text())
    return 0


async def _export(session: Session, path: Path) -> int:
    folders = await _folders(session)
    verifier = _own(folders)
    try:
        names = await to_thread.run_sync(_copy, folders.root / FOLDER, path, verifier)
    except FileExistsError:
        raise ExportError(f"{path} exists: name a new folder", path=str(path)) from None
    except OSError as error:
        raise state_error(error, f"the audit log cannot be copied to {path}") from error
    session.output.document({"folder": str(path), "files": names})
    session.output.line(f"copied {len(names)} files to {path}")
    return 0


def _copy(folder: Path, path: Path, verifier: Verifier) -> list[str]:
    """Copy whole lines only, and return the names of the files."""
    path.mkdir(parents=True)
    # Nobody appends meanwhile.
    with Segments(folder).locked():
        sources = [*segment_paths(folder), folder / CHECKPOINT_FILE]
        names = [source.name for source in sources if source.exists()]
        for name in names:
            write_durably(path / name, (folder / name).read_bytes())
    write_durably(path / VERIFIER_FILE, f"{verifier.to_text()}\n".encode())
    return [*names, VERIFIER_FILE]


async def _folders(session: Session) -> StateFolders:
    return await to_thread.run_sync(StateFolders.open, session.settings.state_dir)


async def _remembered(folders: StateFolders) -> list[Checkpoint]:
    """Return the checkpoint that the state database remembers."""
    store = await SQLiteStore.open(folders)
    try:
        newest = remembered(await store.notes(NOTES))
    finally:
        await store.aclose()
    return [] if newest is None else [newest]


def _own(folders: StateFolders) -> Verifier:
    """Return the key of the state folder's log.

    Raises:
        StateError: There is no log.
    """
    for verifier in _found(folders.keys / VERIFIER_FILE):
        return verifier
    raise StateError(
        f"there is no audit log in {folders.root / FOLDER}: set security.enable_audit_logs"
    )


def _found(path: Path) -> list[Verifier]:
    return [Verifier.parse(_read(path, "audit key"))] if path.exists() else []


def _given(key: str) -> Verifier:
    return Verifier.parse(_read(Path(key), "--key") if Path(key).is_file() else key)


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_NOTE).decode("utf-8", "replace")
    except OSError as error:
        line = f"{what}: {path} cannot be read: {error.strerror}"
        raise ConfigError(line, faults=(line,)) from error


def _last(folder: Path, count: int) -> list[Line]:
    """Return the last lines of the log that can be read, oldest first."""
    found: deque[Line] = deque()
    for path in reversed(segment_paths(folder)):
        with path.open("rb") as file:
            raw = deque((line for line in file if line.endswith(b"\n")), count - len(found))
        found.extendleft(_parse(line, path) for line in reversed(raw))
        if len(found) >= count:
            break
    return list(found)


def _parse(raw: bytes, path: Path) -> Line:
    try:
        return Line.parse(raw)
    except IntegrityError as error:
        raise IntegrityError(
            f"{path}: a line {error.message}; see sandbox-sdk audit verify", path=str(path)
        ) from None


def _shown(line: Line) -> dict[str, object]:
    return {
        "sequence": line.sequence,
        "time": line.time,
        "type": line.type,
        "subject": line.subject,
        "data": line.data,
    }


def _row(line: Line) -> Sequence[str]:
    match line.data.get("actor"):
        case {"name": str(name), "pid": int(pid)}:
            who = f"{name} ({pid})"
        case {"name": str(name)}:
            who = name
        case _:
            who = ""
    outcome = line.data.get("outcome", "")
    return (line.time, line.type.removeprefix("sandbox-sdk."), line.subject, who, str(outcome))


def _in_words(found: AuditVerification) -> str:
    if found.wrong is not None:
        return f"line {found.wrong} ({found.place}) {found.detail}"
    if found.status == "changed":
        return found.detail
    return f"lines {found.first} to {found.last}: {found.detail}"


def _to_json(found: AuditVerification) -> dict[str, object]:
    names = ("status", "first", "last", "signed", "wrong", "place", "detail")
    return {"folder": str(found.folder), **{name: getattr(found, name) for name in names}}
