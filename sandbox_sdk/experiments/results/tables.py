"""The tables of a run, one row per trial in plan order, made from its ledger alone.

``outcomes.csv`` holds what a run decided and nothing of how it went: a run that was killed and
resumed has the same bytes as one that was not. ``trials.csv`` and ``trials.jsonl`` hold the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from sandbox_sdk.durable import write_stream_durably
from sandbox_sdk.errors import StateError
from sandbox_sdk.experiments.records.ledger import Row
from sandbox_sdk.experiments.records.run_record import RunRecord
from sandbox_sdk.experiments.results.export_tables import json_text, write_csv
from sandbox_sdk.experiments.results.result import STATUS

OUTCOMES, TRIALS_CSV, TRIALS_JSONL = "outcomes.csv", "trials.csv", "trials.jsonl"

NOT_RUN = "not_run"
"""Stands for the state of a trial of which no attempt has ended."""


# Any: a row's cells are text, numbers or nothing.
def scorer_names(record: RunRecord) -> list[str]:
    """Return the names of all scorers that gave a score, sorted."""
    names: set[str] = set()
    for row in record.ledger.rows:
        if row is not None and row.scores:
            names |= row.scores.keys()
    return sorted(names)


def outcome_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield what each trial came to."""
    names = scorer_names(record)
    for index, key in enumerate(record.keys):
        row, place = record.ledger.row(index), record.place(index)
        yield {
            "trial": key,
            "condition": place.condition,
            "sample": place.sample,
            "repeat": place.repeat,
            "state": row.state.value if row.state else NOT_RUN,
            **_scores(row, names),
            "stop_reason": row.stop_reason,
            "output_sha256": row.output_digest.hex() if row.output_digest else None,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cost": None if row.cost is None else float(row.cost),
        }


def trial_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield how each trial went."""
    names = scorer_names(record)
    for index in range(len(record.keys)):
        yield trial_row(record, index, names)


def trial_row(record: RunRecord, index: int, names: list[str]) -> dict[str, Any]:
    """Return how a trial went.

    Args:
        record: The run.
        index: The trial's place in the plan.
        names: The scorers that have columns.
    """
    row, place = record.ledger.row(index), record.place(index)
    return {
        "run": record.id,
        "trial": record.keys[index],
        "condition": place.condition,
        "sample": place.sample,
        "repeat": place.repeat,
        "name": record.plan["config"].get("name"),
        "model": place.model,
        "mock": row.mock,
        "status": STATUS[row.state] if row.state else NOT_RUN,
        "state": row.state.value if row.state else NOT_RUN,
        **_scores(row, names),
        "stop_reason": row.stop_reason,
        "limit": row.limit,
        "error": row.error,
        "attempts": row.attempts,
        "replayed": row.replayed,
        "reused": row.reused,
        "tool_calls": row.tool_calls,
        "requests": row.requests,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost": None if row.cost is None else float(row.cost),
        "started_at": row.started_at if row.attempts else None,
        "total_time": row.total_time,
        "model_time": row.model_time,
        "tool_time": row.tool_time,
        "cpu_seconds": row.cpu_seconds,
        "memory_peak_bytes": row.memory_peak_bytes,
    }


def write_tables(record: RunRecord) -> None:
    """Write a run's tables into its folder, each whole or not at all. Blocks on the disk.

    Raises:
        StateError: They cannot be written.
    """

    def lines(file: IO[bytes]) -> None:
        for row in trial_rows(record):
            file.write(json_text(row))

    try:
        for name, rows in ((OUTCOMES, outcome_rows), (TRIALS_CSV, trial_rows)):
            write_stream_durably(record.folder / name, partial(write_csv, rows(record)))
        write_stream_durably(record.folder / TRIALS_JSONL, lines)
    except OSError as error:
        raise StateError(
            f"the tables of the run {record.id} cannot be written: {error.strerror or error}; "
            "free space, then call again: they are made anew from the journal",
            errno=error.errno,
        ) from error


def _scores(row: Row, names: list[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name in names:
        verdict = (row.scores or {}).get(name)
        cells[f"score.{name}"] = verdict.value if verdict else None
        cells[f"label.{name}"] = verdict.label if verdict else None
    return cells
