"""What decides a trial, as one SHA-256: equal keys mean that the same would be run.

In the key: model, address, rendered messages, parameters, seed, tools and their format, the
digests of files, setup and code, sandbox settings, limits, sample id, repeat. Not in it, but in
``lock.json`` or the plan: scorers, targets, names, tags, concurrency, retries, budgets, cache,
prices, the SDK's version and the host's packages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments.batches.opening import opening
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.redaction import plain
from sandbox_sdk.values import SandboxSpec

_SEED_BITS = 31
_OWN_WORDS = ("name", "metadata", "files", "mounts", "internal")


def needs_sandbox(config: ExperimentConfig) -> bool:
    """Return whether an attempt runs anything: one that only asks a model needs no sandbox."""
    return bool(config.tools or config.code or config.files or config.setup)


def trial_seed(seed: int | None, sample: str, repeat: int) -> int | None:
    """Return the seed that a trial sends: equal across conditions, so that pairs compare.

    Args:
        seed: The batch's seed; ``None`` sends none.
        sample: The sample's id.
        repeat: From 1.
    """
    if seed is None:
        return None
    return int(digest([seed, sample, repeat])[:8], 16) >> (32 - _SEED_BITS)


# Any: settings are told as JSON.
def sandbox_facts(spec: SandboxSpec) -> dict[str, Any]:
    """Return what of a sandbox's settings decides what happens in it, as JSON."""
    facts = attrs.asdict(spec, filter=lambda field, _: field.name not in _OWN_WORDS)
    facts["env"] = digest(dict(spec.env)) if spec.env else None
    facts["files"] = {name: _sha256(data) for name, data in spec.files.items()}
    found: dict[str, Any] = plain(facts)
    return found


def condition_digest(config: ExperimentConfig, sandbox: Mapping[str, Any] | None) -> str:
    """Return the digest of what all trials of a condition share.

    Args:
        config: The condition's experiment.
        sandbox: What ``sandbox_facts`` tells, where the trials have sandboxes.
    """
    return digest(
        {
            "model": config.model,
            "base_url": config.base_url,
            "parameters": config.parameters,
            "tools": [
                each if isinstance(each, str) else attrs.asdict(each) for each in config.tools
            ],
            "tool_format": config.tool_format,
            "single_turn": config.single_turn,
            "drop_unsupported": config.drop_unsupported,
            "code": _sha256(config.code) if config.code is not None else None,
            "artifacts": config.artifacts,
            "limits": attrs.asdict(config.limits),
            "sandbox": sandbox,
        }
    )


def trial_key(
    config: ExperimentConfig, condition: str, sample: str, repeat: int, *, blocks: bool
) -> str:
    """Return the key of a trial.

    Args:
        config: The experiment as the trial runs it.
        condition: The digest of its condition.
        sample: The sample's id.
        repeat: From 1.
        blocks: Whether tools are asked for by code blocks.
    """
    return digest(
        {
            "condition": condition,
            "messages": opening(config, blocks=blocks),
            "seed": config.sampling_seed,
            "files": {name: _sha256(data) for name, data in config.files.items()},
            "setup": _sha256(config.setup) if config.setup is not None else None,
            "sample": sample,
            "repeat": repeat,
        }
    )


def _sha256(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
