"""Export runs as folders that open anywhere and can be checked with standard tools.

A folder appears whole or not at all: it is built under another name beside its place, synced, and
renamed. Nothing that exists is overwritten; a folder that already holds the same bytes is left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import anyio.to_thread

from sandbox_sdk.crypto_utils.manifests import MANIFEST, SIGNATURE, SUMS, sums_text
from sandbox_sdk.durable import sync_folder
from sandbox_sdk.errors import ExportError
from sandbox_sdk.experiments.records.artifacts import artifact_path, read_artifact
from sandbox_sdk.experiments.records.journal import JOURNAL, scan_events
from sandbox_sdk.experiments.records.run_files import read_file
from sandbox_sdk.experiments.records.run_folder import LOCK, PLAN, SAMPLES
from sandbox_sdk.experiments.records.run_record import RunRecord, read_run
from sandbox_sdk.experiments.records.seals import Seals
from sandbox_sdk.experiments.results.export_tables import json_text, more_of, write_csv
from sandbox_sdk.experiments.results.export_texts import folder_name, readme, summary
from sandbox_sdk.experiments.results.tables import (
    OUTCOMES,
    TRIALS_CSV,
    TRIALS_JSONL,
    outcome_rows,
    trial_rows,
)
from sandbox_sdk.values import Artifact

_SCHEMA = 1

_MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv",
    ".txt": "text/plain",
}


async def export_runs(
    folders: Iterable[Path],
    target: Path,
    *,
    sign: Callable[[bytes], bytes] | None = None,
    seals: Seals | None = None,
) -> list[Path]:
    """Export runs, each into a folder of its own in ``target``, and return these folders.

    Args:
        folders: The runs' folders in the state folder.
        target: Where to; made if need be.
        sign: Returns the signature of a manifest, the same each time; ``None`` signs nothing.
        seals: Opens those that are sealed; what is exported is not.

    Raises:
        ExportError: A run is still running, an artifact is damaged, the folder's name is taken
            by something else, or the disk is full; no half folder is left.
        StateError: A run's own folder is damaged.
    """
    exported: list[Path] = []
    for folder in folders:
        exported.append(await anyio.to_thread.run_sync(export_run, folder, target, sign, seals))  # noqa: PERF401
    return exported


def export_run(
    folder: Path,
    target: Path,
    sign: Callable[[bytes], bytes] | None = None,
    seals: Seals | None = None,
) -> Path:
    """Export one run into a folder in ``target`` and return it. Blocks on the disk.

    Raises:
        ExportError: As ``export_runs`` says.
        KeyNotFound: The run is sealed, and its key is not here.
        IntegrityError: It is sealed, and something of it was changed.
        StateError: The run's own folder is damaged.
    """
    record = read_run(folder, seals)
    if record.live:
        raise ExportError(
            f"the run {record.id} is still running; export it when it has ended", path=str(target)
        )
    place = target / folder_name(record)
    draft = target / f".{record.id}.{secrets.token_hex(4)}.partial"
    try:
        target.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o700)
        _build(record, draft, sign)
        return _put(draft, place)
    except OSError as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(
            f"the run {record.id} cannot be exported to {target}: {error.strerror or error}; "
            "free space or choose another place; nothing was left there",
            path=str(target),
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _build(record: RunRecord, draft: Path, sign: Callable[[bytes], bytes] | None) -> None:
    """Write every file of the export."""
    files: dict[str, dict[str, Any]] = {}

    def add(name: str, write: Callable[[IO[bytes]], object], **more: Any) -> None:
        entry = _write(draft / name, write)
        files[name] = {**entry, "media_type": _MEDIA_TYPES[Path(name).suffix], **more}

    def text(data: bytes) -> Callable[[IO[bytes]], object]:
        return lambda file: file.write(data)

    trials = {"rows": len(record.keys)}
    add(PLAN, text(json_text(record.plan, indent=2)))
    add(LOCK, text(json_text(record.lock or {}, indent=2)))
    add(JOURNAL, partial(_journal, record), rows=record.ledger.events)
    if record.sandbox_id:
        result = record.result
        add("result.json", text(json_text(result.to_dict() if result else None, indent=2)))
    if (record.folder / SAMPLES).exists():
        samples = read_file(record.folder, SAMPLES, record.payloads)
        add(SAMPLES, lambda file: file.writelines(samples))
    add(OUTCOMES, partial(write_csv, outcome_rows(record)), **trials)
    add(TRIALS_CSV, partial(write_csv, _trials(record)), **trials)
    add(TRIALS_JSONL, partial(_jsonl, _trials(record)), **trials)
    add("attempts.jsonl", partial(_jsonl, _attempts(record)))
    add("README.txt", text(readme(record).encode("utf-8", "backslashreplace")))
    for artifact in _artifacts(record):
        name = str(artifact_path(Path(), artifact.sha256))
        if name not in files:
            entry = _copy(record, artifact, draft / name)
            files[name] = {**entry, "media_type": artifact.media_type}
    manifest = json_text(
        {"schema": _SCHEMA, "run": summary(record), "files": dict(sorted(files.items()))}, indent=2
    )
    sums = {name: entry["sha256"] for name, entry in files.items()}
    sums[MANIFEST] = _write(draft / MANIFEST, text(manifest))["sha256"]
    if sign is not None:
        sums[SIGNATURE] = _write(draft / SIGNATURE, text(sign(manifest)))["sha256"]
    _write(draft / SUMS, text(sums_text(sums)))
    for path, _, _ in os.walk(draft):
        sync_folder(Path(path))


def _journal(record: RunRecord, file: IO[bytes]) -> None:
    for placed in scan_events(record.folder / JOURNAL, record.payloads):
        file.write(placed.event.to_line())


def _trials(record: RunRecord) -> Iterator[dict[str, Any]]:
    for index, row in enumerate(trial_rows(record)):
        yield {**row, **more_of(record.result_of(index))}


def _attempts(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield every attempt of each trial with all there is to say of it."""
    for index, number, result in record.results():
        yield {"trial": record.keys[index], "attempt": number, **result.to_dict()}


def _artifacts(record: RunRecord) -> Iterator[Artifact]:
    for _, _, result in record.results():
        yield from result.artifacts


def _jsonl(rows: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    for row in rows:
        file.write(json_text(row))


def _put(draft: Path, place: Path) -> Path:
    """Give the finished folder its name, unless something of that name exists."""
    try:
        draft.rename(place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        if not _same(draft, place):
            raise ExportError(
                f"{place} exists and holds something else; move it away or export to another "
                "place; it was not touched",
                path=str(place),
            ) from None
    sync_folder(place.parent)
    return place


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> dict[str, Any]:
    """Write a new file, durable on return, and return its size and SHA-256."""
    with path.open("x+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size_bytes": size, "sha256": sha256}


def _copy(record: RunRecord, artifact: Artifact, target: Path) -> dict[str, Any]:
    """Copy an artifact, and make sure that it still is what its name says."""
    source = artifact_path(record.folder, artifact.sha256, record.payloads)
    sha256, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as writing:
        try:
            for chunk in read_artifact(record.folder, artifact.sha256, record.payloads):
                sha256.update(chunk)
                size += len(chunk)
                writing.write(chunk)
        except (FileNotFoundError, NotADirectoryError):
            raise ExportError(
                f"the artifact {artifact.path!r} of the run {record.id} is missing at {source}; "
                "restore it from a copy",
                path=str(target),
            ) from None
        writing.flush()
        os.fsync(writing.fileno())
    if sha256.hexdigest() != artifact.sha256:
        raise ExportError(
            f"the artifact {artifact.path!r} of the run {record.id} is damaged at {source}: its "
            "SHA-256 is not its name; restore it from a copy",
            path=str(target),
        )
    return {"size_bytes": size, "sha256": artifact.sha256}


def _same(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same files with the same bytes, and no links."""
    names = _files(first)
    if second.is_symlink() or not second.is_dir() or names != _files(second):
        return False
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def _files(folder: Path) -> set[str]:
    """Return what is below a folder but plain folders; a link's name never equals a file's."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {f"{path.relative_to(folder)}{'@' * path.is_symlink()}" for path in found}
