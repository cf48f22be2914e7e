"""What a batch is: an experiment's fields, a dataset, a grid, and how to go about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.batches.datasets import Dataset, of_samples, read_dataset
from sandbox_sdk.experiments.batches.grid import Cell, expand
from sandbox_sdk.experiments.batches.template import fields_of
from sandbox_sdk.experiments.budgets.budget_limits import BudgetLimits, budget_json, read_budget
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.records.redaction import plain
from sandbox_sdk.experiments.schema import FIELDS, HINTS
from sandbox_sdk.experiments.scorers import Scorer, build_all
from sandbox_sdk.parse import Faults, fault
from sandbox_sdk.values import Sample

MOST_TRIALS = 1_000_000
"""The most trials of one batch."""

ADMISSION_SECONDS = 60.0
"""How long a sandbox waits for a place by default."""

_OWN_WORDS = ("name", "description", "tags", "metadata")
_SETTINGS = ("repeats", "max_concurrency", "fail_on_error", "admission_timeout")
_MOST_FAULTY = 3  # conditions whose faults are told; more would repeat them
_PLACEHOLDER = "{input}"


@attrs.frozen(kw_only=True)
class Condition:
    """One combination of a batch's settings.

    Attributes:
        label: Its name in tables.
        axes: Axis of the grid -> value.
        config: Its experiment; the sample's prompt, files and setup are put in for each trial.
        asks_sample: Whether the sample's input is the prompt as it is.
        sandbox: What ``create_sandbox`` is called with for each attempt.
    """

    label: str
    axes: Mapping[str, Any] = attrs.field(repr=False)
    config: ExperimentConfig
    asks_sample: bool = False
    sandbox: Mapping[str, object] = attrs.field(factory=dict[str, object], repr=False)


@attrs.frozen(kw_only=True)
class BatchConfig:
    """Many trials: every condition with every sample, ``repeats`` times.

    Attributes:
        name: The user's name for it.
        description: The user's own words.
        tags: The user's own words, for sorting.
        metadata: Whatever the user wants kept with it.
        conditions: What the grid makes.
        dataset: The samples; one nameless sample where the config has no dataset.
        has_dataset: Whether the config has one.
        repeats: How often each condition is tried with each sample.
        max_concurrency: The most trials at once; ``None`` adapts to the models.
        fail_on_error: The share of ended trials with model or infrastructure errors from which on
            no more are started, from 0 to 1; ``None`` goes on. It acts from 20 ended trials on.
        admission_timeout: Seconds that a sandbox waits for a place while others hold all.
        scorers: What judges each trial.
        budget: What all of them may use.
    """

    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    conditions: tuple[Condition, ...]
    dataset: Dataset
    has_dataset: bool = False
    repeats: int = 1
    max_concurrency: int | None = None
    fail_on_error: float | None = 0.5
    admission_timeout: float = ADMISSION_SECONDS
    scorers: tuple[Scorer, ...] = ()
    budget: BudgetLimits = attrs.field(factory=BudgetLimits)

    def to_json(self) -> dict[str, Any]:
        """Return what is said of the batch as a whole, as JSON."""
        told = {name: getattr(self, name) for name in (*_OWN_WORDS, *_SETTINGS)}
        told["budget"] = budget_json(self.budget)
        told["scorers"] = [{"name": each.name, "digest": each.digest} for each in self.scorers]
        filled: dict[str, Any] = plain(told)
        return filled

    @property
    def planned(self) -> int:
        """How many trials there are."""
        return len(self.conditions) * len(self.dataset.samples) * self.repeats

    @classmethod
    def read(cls, config: Mapping[str, object], path: str = "batch") -> BatchConfig:
        """Return the batch that a dict describes. Reads the dataset's file, so it may block.

        Raises:
            ConfigError: It describes none; all faults at once, each with its path.
        """
        # An experiment's own fields are read once for each condition, not here.
        config = fields.names_of(config, path)
        own = {name: value for name, value in config.items() if name not in FIELDS}
        experiment: dict[str, Any] = {name: config[name] for name in config if name in FIELDS}
        faults = Faults()
        found: dict[str, Any] = {}
        with faults.collect():
            found |= fields.read_fields(own, path, {**FIELDS, **_BATCH}, HINTS)
        with faults.collect():
            experiment["sandbox"] = found.get("sandbox", {})
            axes = [name for name in (*FIELDS, "sandbox") if name not in _OWN_WORDS]
            cells = expand(experiment, own.get("grid"), axes, f"{path}.grid")
            found["conditions"] = _conditions(cells, path, has_dataset="dataset" in own)
        faults.check()
        dataset = found.pop("dataset", None) or of_samples([Sample(id="1")], "none")
        first = found["conditions"][0].config
        batch = cls(
            name=first.name,
            description=first.description,
            tags=first.tags,
            metadata=first.metadata,
            dataset=dataset,
            has_dataset="dataset" in own,
            **{name: value for name, value in found.items() if name not in ("grid", "sandbox")},
        )
        _check_samples(batch, path)
        return batch


def _conditions(cells: list[Cell], path: str, *, has_dataset: bool) -> tuple[Condition, ...]:
    faults = Faults()
    found: list[Condition] = []
    faulty = 0
    for cell in cells:
        try:
            found.append(_condition(cell, path, has_dataset=has_dataset))
        except ConfigError as error:
            faulty += 1
            source = f" (condition {cell.label})" if cell.axes else ""
            for line in error.faults:
                at, _, what = line.partition(": ")
                at = at.replace("experiment", path, 1) if at.startswith("experiment") else at
                faults.add(at, what + source)
            if faulty == _MOST_FAULTY:
                break
    faults.check()
    return tuple(found)


def _condition(cell: Cell, path: str, *, has_dataset: bool) -> Condition:
    config = dict(cell.config)
    sandbox = fields.names_of(config.pop("sandbox", {}), f"{path}.sandbox")
    asked = config.get("prompt") or config.get("messages") or config.get("code")
    asks_sample = has_dataset and not asked
    if asks_sample:
        config["prompt"] = _PLACEHOLDER
    return Condition(
        label=cell.label,
        axes=cell.axes,
        config=ExperimentConfig.read(config),
        asks_sample=asks_sample,
        sandbox=dict(sandbox),
    )


def _check_samples(batch: BatchConfig, path: str) -> None:
    """Refuse conditions and samples that do not go together."""
    faults = Faults()
    for scorer in batch.scorers:
        for sample in batch.dataset.samples:
            try:
                scorer.check(sample, f"{path}.dataset[{sample.id}]")
            except ConfigError as error:  # every other sample most likely has the same
                for line in error.faults:
                    at, _, what = line.partition(": ")
                    faults.add(at, f"{what} (scorer {scorer.name})")
                break
    if batch.planned > MOST_TRIALS:
        faults.add(path, f"makes {batch.planned:,} trials, more than the {MOST_TRIALS:,} allowed")
    samples = batch.dataset.samples if batch.has_dataset else ()
    asking = [sample for sample in samples if sample.prompt is not None or sample.messages]
    for condition in batch.conditions:
        prompt = condition.config.prompt
        source = f" (condition {condition.label})" if condition.axes else ""
        if condition.asks_sample:
            for sample in samples:
                if sample.prompt is None and not sample.messages:
                    faults.add(f"{path}.dataset", f"sample {sample.id!r} has no input{source}")
                    break
        elif prompt is None:
            if asking:
                what = '"messages"' if condition.config.messages else '"code"'
                why = f'has "input", which {what} does not use; leave one of them out'
                faults.add(f"{path}.dataset", why + source)
        else:
            for line in _unfilled(prompt, samples, asking=bool(asking)):
                faults.add(f"{path}.prompt", line + source)
    faults.check()


def _unfilled(prompt: str, samples: tuple[Sample, ...], *, asking: bool) -> list[str]:
    """Return why a prompt cannot be filled in from the samples, if it cannot."""
    wanted = fields_of(prompt)
    if not samples:
        return []
    if asking and "input" not in wanted:
        return ['does not hold "{input}", so every sample would be asked the same']
    for sample in samples:
        if "input" in wanted and sample.prompt is None:
            return [f'holds "{{input}}", but the input of sample {sample.id!r} is no text']
        for field in sorted(wanted - {"input"}):
            if field.removeprefix("metadata.") not in sample.metadata:
                return [f'holds "{{{field}}}", which sample {sample.id!r} has not']
    return []


def _scale(value: object, path: str) -> object:
    return None if value is None else fields.number(0, 1)(value, path)


def _sandbox(value: object, path: str) -> object:
    found = fields.names_of(value, path)
    if "name" in found:
        raise fault(f"{path}.name", "is given by the run: leave it out")
    return found


def _grid(value: object, path: str) -> object:
    return fields.names_of(value, path)


_BATCH: Mapping[str, fields.Reader] = {
    "dataset": lambda value, path: read_dataset(value, path),
    "grid": _grid,
    "sandbox": _sandbox,
    "repeats": fields.whole(1, 100_000),
    "max_concurrency": fields.whole(1, 10_000),
    "fail_on_error": _scale,
    "admission_timeout": fields.number(0, 10**8, above=True),
    "scorers": build_all,
    "budget": read_budget,
}

BATCH_FIELDS: tuple[str, ...] = tuple(_BATCH)
"""The fields of a batch besides an experiment's."""
