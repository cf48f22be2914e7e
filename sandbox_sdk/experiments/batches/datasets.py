"""Datasets: rows from a list, a JSONL or CSV file or a function, read strictly into samples."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.records.digests import canonical_json
from sandbox_sdk.experiments.schema import file_map, message
from sandbox_sdk.parse import Faults, describe, fault
from sandbox_sdk.values import Sample

MOST_SAMPLES = 1_000_000
"""The most rows of one dataset."""

_MOST_BAD_ROWS = 20
_LONGEST_CELL = 16 * 1024 * 1024
_BUILT_IN = "list"


@attrs.frozen(kw_only=True, eq=False)
class Dataset:
    """The samples of a run.

    Attributes:
        samples: The rows in order.
        digest: SHA-256 over all of them.
        source: Where they came from: a file's name, a function's, or ``list``.
    """

    samples: tuple[Sample, ...] = attrs.field(repr=False)
    digest: str
    source: str

    def take(self, *, limit: int | None = None, ids: Iterable[str] = ()) -> Dataset:
        """Return the dataset cut to some of its rows.

        Args:
            limit: The first so many; ``None`` is all.
            ids: Only those of these names; none is all.

        Raises:
            ConfigError: A name is no sample's.
        """
        wanted = set(ids)
        if unknown := sorted(wanted - {sample.id for sample in self.samples}):
            shown = ", ".join(map(repr, unknown[:5]))
            raise fault("sample_id", f"the dataset has no sample {shown}")
        chosen = [sample for sample in self.samples if not wanted or sample.id in wanted]
        return of_samples(chosen[:limit], self.source)


def of_samples(samples: Iterable[Sample], source: str) -> Dataset:
    """Return a dataset of samples that are right already."""
    found = tuple(samples)
    sha256 = hashlib.sha256()
    for sample in found:
        sha256.update(canonical_json(to_json(sample)) + b"\n")
    return Dataset(samples=found, digest=sha256.hexdigest(), source=source)


def read_dataset(value: object, path: str = "dataset") -> Dataset:
    """Return the dataset that a user's value means. Reads files, so it may block.

    Args:
        value: A list of rows, the path of a ``.jsonl`` or ``.csv`` file, or a function without
            arguments that returns an iterable of rows. A row is a text (the input), a mapping of
            ``id``, ``input``, ``target``, ``metadata``, ``files`` and ``setup``, or a ``Sample``.
        path: Where the value stands.

    Raises:
        ConfigError: It is none; all faults at once, each with its row.
    """
    rows, source = _rows(value, path)
    faults = Faults()
    samples: list[Sample] = []
    seen: dict[str, int] = {}
    bad = 0
    for number, row in enumerate(rows, start=1):
        if number > MOST_SAMPLES:
            raise fault(path, f"has more than the {MOST_SAMPLES:,} rows allowed")
        where = f"{path}[{number}]"
        try:
            sample = _sample(row, where, number)
            if (first := seen.setdefault(sample.id, number)) != number:
                raise fault(f"{where}.id", f"{sample.id!r} is the id of row {first} too")
        except ConfigError as error:
            bad += 1
            for line in error.faults[:_MOST_BAD_ROWS]:
                at, _, what = line.partition(": ")
                faults.add(at, what)
            if bad == _MOST_BAD_ROWS:
                faults.add(path, "there may be more faults in the rows after these")
                break
        else:
            samples.append(sample)
    faults.check()
    if not samples:
        raise fault(path, "holds no rows")
    return of_samples(samples, source)


def to_json(sample: Sample) -> dict[str, Any]:
    """Return a sample as the row it was read from, without what is empty."""
    content: Any = sample.prompt if sample.prompt is not None else list(sample.messages)
    row = {
        "id": sample.id,
        "input": content or None,
        "target": sample.target,
        "metadata": dict(sample.metadata),
        "files": {name: _content(data) for name, data in sample.files.items()},
        "setup": sample.setup,
    }
    return {name: value for name, value in row.items() if value not in (None, {})}


def from_json(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row that ``to_json`` made.

    Raises:
        ConfigError: It is none.
    """
    files = {
        name: data if isinstance(data, str) else base64.b64decode(data["base64"])
        for name, data in row.get("files", {}).items()
    }
    return _sample({**row, "files": files}, "sample", 0)


def _rows(value: object, path: str) -> tuple[Iterable[object], str]:
    if isinstance(value, Dataset):
        return value.samples, value.source
    if isinstance(value, str | Path):
        return _file_rows(Path(value), path), Path(value).name
    if isinstance(value, list | tuple):
        return cast("Iterable[object]", value), _BUILT_IN
    if callable(value):
        return _called(cast("Callable[[], object]", value), path)
    wanted = 'a list of rows, the path of a ".jsonl" or ".csv" file, or a function'
    raise fault(path, f"must be {wanted}, not {describe(value)}")


def _called(function: Callable[[], object], path: str) -> tuple[Iterable[object], str]:
    name = str(getattr(function, "__qualname__", type(function).__name__))
    rows = function()
    if not _is_rows(rows):
        close = getattr(rows, "close", None)
        if close is not None:
            close()  # a coroutine that nobody awaits would be warned about
        raise fault(path, f"{name}() must return an iterable of rows, not {describe(rows)}")
    return cast("Iterable[object]", rows), name


def _is_rows(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _file_rows(file: Path, path: str) -> Iterator[object]:
    readers: dict[str, Callable[[Path, str], Iterator[object]]] = {
        ".jsonl": _jsonl,
        ".ndjson": _jsonl,
        ".csv": _csv,
    }
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise fault(path, f'{file.name!r} must end in ".jsonl" or ".csv"')
    try:
        yield from reader(file, path)
    except OSError as error:
        raise fault(path, f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise fault(path, f"{file} is not UTF-8 text") from None


def _jsonl(file: Path, path: str) -> Iterator[object]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                raise fault(path, f"line {number} of {file} is not JSON") from None


def _csv(file: Path, path: str) -> Iterator[object]:
    """Yield the rows of a CSV; its other columns are metadata, and empty cells are left out."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            for number, row in enumerate(csv.DictReader(text, strict=True), start=1):
                if None in row or None in row.values():
                    raise fault(path, f"row {number} of {file} has other columns than the header")
                known = {name: cell for name, cell in row.items() if name in _COLUMNS and cell}
                other = {name: cell for name, cell in row.items() if name not in _COLUMNS and cell}
                yield {**known, **({"metadata": other} if other else {})}
    except csv.Error as error:
        raise fault(path, f"{file} is not CSV: {error}") from None
    finally:
        csv.field_size_limit(before)


def _sample(row: object, path: str, number: int) -> Sample:
    if isinstance(row, Sample):
        return row
    if isinstance(row, str):
        row = {"input": row}
    found: dict[str, Any] = fields.read_fields(row, path, _ROW, _HINTS)
    asked: Any = found.get("input")
    return Sample(
        id=found.get("id", str(number)),
        prompt=asked if isinstance(asked, str) else None,
        messages=cast("tuple[Mapping[str, Any], ...]", asked) if isinstance(asked, tuple) else (),
        target=found.get("target"),
        metadata=found.get("metadata", {}),
        files=found.get("files", {}),
        setup=found.get("setup"),
    )


def _id(value: object, path: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return fields.line(value, path)


def _input(value: object, path: str) -> object:
    if isinstance(value, str):
        return fields.filled_text(value, path)
    found = fields.list_of(message)(value, path)
    if not found:
        raise fault(path, "must not be empty")
    return found


def _content(data: str | bytes) -> object:
    return data if isinstance(data, str) else {"base64": base64.b64encode(data).decode()}


_ROW: Mapping[str, fields.Reader] = {
    "id": _id,
    "input": _input,
    "target": fields.json_value,
    "metadata": fields.json_object,
    "files": file_map,
    "setup": fields.filled_text,
}
_COLUMNS = frozenset(_ROW) - {"metadata", "files"}
_HINTS = {
    **dict.fromkeys(("prompt", "question", "messages"), 'is called "input" in a dataset'),
    **dict.fromkeys(("expected", "answer", "ideal", "label"), 'is called "target" in a dataset'),
}
