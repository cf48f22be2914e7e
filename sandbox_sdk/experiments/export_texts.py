"""What an exported folder is called, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sandbox_sdk.experiments.run_folder import RunRecord

_README = """\
One run of an experiment, exported by sandbox-sdk {sdk}.

run:      {run}
status:   {status} ({state})
model:    {model}

Check that nothing changed:   sha256sum -c SHA256SUMS
Check who signed it:          sandbox-sdk verify --key PUBLIC_KEY .
                              (if there is a MANIFEST.json.sig; ask its owner for the public key)

MANIFEST.json    what is here: every file with its size, SHA-256 and kind
plan.json        what was to be done: the config with every default
lock.json        what it was done with: versions, kernel, isolation in force
events.jsonl     what happened, in order; everything below is derived from it
result.json      the result
trials.csv       one row per trial (trials.jsonl is the same); a quote stands in front of
                 text that a spreadsheet would run as a formula
attempts.jsonl   one row per attempt, with messages and tool calls
artifacts/       files from the sandbox and whole outputs of tools, named by their SHA-256;
                 result.json says which name each had

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
    result = record.result
    return {
        "id": record.id,
        "sandbox": record.sandbox_id,
        "created_at": record.created_at,
        "status": result.status if result else None,
        "state": result.state.value if result else None,
        "config_digest": record.plan["config_digest"],
        "trials": 1 if result else 0,
        "mock": result.provenance.mock if result else None,
    }


def readme(record: RunRecord) -> str:
    """Return the text that says what an export is and how to check it."""
    result = record.result
    asked = record.plan["config"].get("model") or "none: code alone"
    return _README.format(
        sdk=result.provenance.sdk_version if result else "",
        run=record.id,
        status=result.status if result else "never started",
        state=result.state.value if result else "never started",
        model=asked
        + " (a mock: the answers are scripted)" * bool(result and result.provenance.mock),
    )
