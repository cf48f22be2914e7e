"""Rows as CSV and JSON that open anywhere, whatever hostile text is in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

from sandbox_sdk.experiments.results.result import ExperimentResult

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def json_text(value: object, *, indent: int | None = None) -> bytes:
    """Return a value as JSON that people can read; half a character becomes an escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    # A backslash and the number is what JSON itself writes for what UTF-8 cannot.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def more_of(result: ExperimentResult | None) -> dict[str, Any]:
    """Return what an export's row of a trial has besides those of the run's own tables."""
    return {
        "response_model": result.provenance.response_model if result else None,
        "error_message": result.error.message if result and result.error else None,
        "working_time": result.timings.working_time if result else None,
        "output": result.output if result else None,
    }


def write_csv(rows: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    """Write rows as CSV. Text that a spreadsheet would run as a formula gets a quote in front."""
    text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            # Both characters end a line, so that a cell with either is quoted.
            writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\r\n")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    text.flush()
    text.detach()  # the file is the caller's to close


def _cell(value: object) -> object:
    if isinstance(value, str):
        # Readers end a text at NUL, or refuse the file.
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value
