"""What an exported folder is called, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox_sdk.experiments.records.run_record import RunRecord

_README = """\
One run of an experiment, exported by sandbox-sdk {sdk}.

run:      {run}
ended:    {ended}
model:    {model}

Check that nothing changed:   sha256sum -c SHA256SUMS
Check who signed it:          sandbox-sdk verify --key PUBLIC_KEY .
                              (if there is a MANIFEST.json.sig; ask its owner for the public key)

MANIFEST.json    what is here: every file with its size, SHA-256 and kind
plan.json        what was to be done: the config with every default
lock.json        what it was done with: versions, kernel, isolation in force
{samples}events.jsonl     what happened, in order; everything below is derived from it
{result}outcomes.csv     what each trial came to, in plan order
trials.csv       how each went (trials.jsonl is the same); a quote stands in front of
                 text that a spreadsheet would run as a formula
attempts.jsonl   every attempt of each trial, with messages and tool calls
artifacts/       files from the sandbox and whole outputs of tools, named by their SHA-256;
                 attempts.jsonl says which name each had

Texts and artifacts were written by a model or its code: do not run or open them as trusted.
"""


def folder_name(record: RunRecord) -> str:
    """Return a name that sorts, says what it is, and is safe in every file system."""
    wanted = str(record.plan["config"].get("name") or "run")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-.")[:60] or "run"
    moment = datetime.fromtimestamp(record.created_at, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return f"{name}_{moment}_{record.id[-6:]}"


def summary(record: RunRecord) -> Mapping[str, Any]:
    """Return the run in a few fields, for the manifest."""
    ledger = record.ledger
    told: dict[str, Any] = {
        "id": record.id,
        "sandbox": record.sandbox_id or None,
        "created_at": record.created_at,
        "config_digest": record.plan["config_digest"],
        "trials": ledger.ended,
        "planned": len(record.keys),
        "states": {state.value: count for state, count in sorted(ledger.states.items()) if count},
        "mock": any(row is not None and row.mock for row in ledger.rows),
    }
    if record.sandbox_id:
        result = record.result
        told["status"] = result.status if result else None
        told["state"] = result.state.value if result else None
    return told


def readme(record: RunRecord) -> str:
    """Return the text that says what an export is and how to check it."""
    one, ledger = bool(record.sandbox_id), record.ledger
    models = {each["config"].get("model") for each in record.plan["conditions"]}
    mock = any(row is not None and row.mock for row in ledger.rows)
    states = ", ".join(
        f"{state.value} {count}" for state, count in sorted(ledger.states.items()) if count
    )
    return _README.format(
        sdk=record.plan["sdk"],
        run=record.id,
        ended=f"{ledger.ended:,} of {len(record.keys):,} trials ({states or 'never started'})",
        model=", ".join(sorted(model or "none: code alone" for model in models))
        + " (a mock: the answers are scripted)" * mock,
        result="result.json      the result\n" if one else "",
        samples="samples.jsonl    the dataset\n" if record.plan["dataset"] else "",
    )
