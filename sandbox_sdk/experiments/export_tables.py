"""The tables of an export, one row per trial and one per attempt, derived from the result."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sandbox_sdk.experiments.result import ExperimentResult

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def json_text(value: object, *, indent: int | None = None) -> bytes:
    """Return a value as JSON that people can read; half a character becomes an escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    # A backslash and the number is what JSON itself writes for what UTF-8 cannot.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def trial_row(result: ExperimentResult, trial: str) -> dict[str, Any]:
    """Return the row of a trial."""
    provenance, timings, use = result.provenance, result.timings, result.resource_usage
    return {
        "run": result.id,
        "trial": trial,
        "name": result.name,
        "model": provenance.requested_model,
        "response_model": provenance.response_model,
        "mock": provenance.mock,
        "status": result.status,
        "state": result.state.value,
        "stop_reason": result.stop_reason,
        "limit": result.limit.type if result.limit else None,
        "error": result.error.type if result.error else None,
        "error_message": result.error.message if result.error else None,
        "attempts": 1,
        "tool_calls": len(result.tool_calls),
        "requests": result.usage.requests,
        "input_tokens": result.usage.input_tokens,
        "output_tokens": result.usage.output_tokens,
        "cost": float(result.cost.total) if result.cost else None,
        "started_at": timings.started_at,
        "total_time": timings.total_time,
        "working_time": timings.working_time,
        "model_time": timings.model_time,
        "tool_time": timings.tool_time,
        "cpu_seconds": use.cpu_seconds if use else None,
        "memory_peak_bytes": use.memory_peak_bytes if use else None,
        "output": result.output,
    }


def attempt_row(result: ExperimentResult, trial: str) -> dict[str, Any]:
    """Return the row of an attempt: all there is to say of it."""
    return {"trial": trial, "attempt": 1, **result.to_dict()}


def to_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV. Text that a spreadsheet would run as a formula gets a quote in front."""
    text = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            # Both characters end a line, so that a cell with either is quoted.
            writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\r\n")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue().encode("utf-8", "backslashreplace")


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as lines of JSON."""
    return b"".join(map(json_text, rows))


def _cell(value: object) -> object:
    if isinstance(value, str):
        # Readers end a text at NUL, or refuse the file.
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value
