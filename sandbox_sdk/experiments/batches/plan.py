"""The plan of a run: its trials in order, each with its key, made ready one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.batches.batch_config import BatchConfig, Condition
from sandbox_sdk.experiments.batches.opening import uses_blocks
from sandbox_sdk.experiments.batches.template import fields_of, fill
from sandbox_sdk.experiments.batches.trial_key import (
    condition_digest,
    needs_sandbox,
    sandbox_facts,
    trial_key,
    trial_seed,
)
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.values import Sample, Sandboxes, SandboxSpec


@attrs.frozen(kw_only=True)
class Ready:
    """A condition with what is worked out once for all its trials.

    Attributes:
        condition: The condition.
        spec: The settings of its sandboxes.
        facts: What of them decides what happens, as JSON.
        blocks: Whether tools are asked for by code blocks.
        places: What its prompt has places for.
        digests: The condition's digest, for trials without and with a sandbox.
    """

    condition: Condition
    spec: SandboxSpec
    facts: dict[str, Any] = attrs.field(repr=False)
    blocks: bool
    places: frozenset[str]
    digests: tuple[str, str]


@attrs.frozen(kw_only=True)
class PlannedTrial:
    """One trial: a condition, a sample, and which repeat it is.

    Attributes:
        index: Its place in the plan, from 0.
        key: Its key.
        condition: Its condition.
        sample: Its sample.
        repeat: From 1.
        config: The experiment as it is run.
        spec: The settings of its sandbox; ``None`` if it needs none.
        blocks: Whether tools are asked for by code blocks.
    """

    index: int
    key: str
    condition: Condition
    sample: Sample
    repeat: int
    config: ExperimentConfig = attrs.field(repr=False)
    spec: SandboxSpec | None = attrs.field(repr=False)
    blocks: bool = False


class Plan:
    """The trials of a run: for each repeat, for each sample, for each condition.

    So what a run that ends early has done is spread evenly over conditions and samples.

    Args:
        batch: The batch.
        ready: Its conditions.
        derive_seeds: Whether each trial's seed is derived from the batch's, or is that one.
    """

    def __init__(
        self,
        batch: BatchConfig,
        ready: Sequence[Ready],
        *,
        derive_seeds: bool = True,
    ) -> None:
        self.batch = batch
        self.ready = tuple(ready)
        self._derive_seeds = derive_seeds
        self.keys = [self._key(index) for index in range(batch.planned)]
        self._places = {key: index for index, key in enumerate(self.keys)}
        told = hashlib.sha256("\n".join(self.keys).encode()).hexdigest()
        scorers = [[scorer.name, scorer.digest] for scorer in batch.scorers]
        self.digest = digest([batch.name, batch.dataset.digest, told, scorers])

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[PlannedTrial]:
        return map(self.trial, range(len(self)))

    @property
    def metadata(self) -> dict[str, Mapping[str, str]]:
        """Condition -> the metadata of its sandboxes."""
        return {each.condition.label: each.spec.metadata for each in self.ready}

    def index(self, key: str) -> int | None:
        """Return the place of the trial with this key, or ``None`` if there is none."""
        return self._places.get(key)

    def trial(self, index: int) -> PlannedTrial:
        """Return the trial at a place in the plan."""
        ready, sample, repeat = self._at(index)
        config = self._render(ready, sample, repeat)
        return PlannedTrial(
            index=index,
            key=self.keys[index],
            condition=ready.condition,
            sample=sample,
            repeat=repeat,
            config=config,
            spec=ready.spec if needs_sandbox(config) else None,
            blocks=ready.blocks,
        )

    def _at(self, index: int) -> tuple[Ready, Sample, int]:
        samples = self.batch.dataset.samples
        rest, condition = divmod(index, len(self.ready))
        repeat, sample = divmod(rest, len(samples))
        return self.ready[condition], samples[sample], repeat + 1

    def _key(self, index: int) -> str:
        ready, sample, repeat = self._at(index)
        config = self._render(ready, sample, repeat)
        digests = ready.digests[needs_sandbox(config)]
        return trial_key(config, digests, sample.id, repeat, blocks=ready.blocks)

    def _render(self, ready: Ready, sample: Sample, repeat: int) -> ExperimentConfig:
        """Return a condition's experiment with a sample's words in it."""
        config = ready.condition.config
        changes: dict[str, Any] = {}
        if ready.condition.asks_sample:
            changes |= {"prompt": sample.prompt, "messages": sample.messages}
        elif ready.places and config.prompt is not None:
            changes["prompt"] = fill(config.prompt, sample)
        if sample.files:
            changes["files"] = {**config.files, **sample.files}
        if sample.setup is not None:
            both = config.setup is not None
            changes["setup"] = _joined(config.setup, sample.setup) if both else sample.setup
        if self._derive_seeds and config.seed is not None:
            changes["seed"] = trial_seed(config.seed, sample.id, repeat)
        return attrs.evolve(config, **changes) if changes else config


async def make_ready(
    batch: BatchConfig, models: ModelRegistry, sandboxes: Sandboxes
) -> list[Ready]:
    """Return a batch's conditions, checked as far as can be without running anything.

    Raises:
        ConfigError: A condition's model or sandbox settings cannot be what they say.
        ModelError: A model cannot be called.
        TemplateError: There is no such template.
    """
    found: list[Ready] = []
    for condition in batch.conditions:
        await models.check(condition.config)
        spec = await sandboxes.prepare(condition.sandbox)
        found.append(ready_condition(batch, condition, spec, models))
    return found


def ready_condition(
    batch: BatchConfig, condition: Condition, spec: SandboxSpec, models: ModelRegistry
) -> Ready:
    """Return a condition with what all its trials share worked out."""
    config = condition.config
    blocks = False
    if config.model is not None:
        blocks = uses_blocks(config, supports_tools=models.request(config)[0].supports_tools)
    facts = sandbox_facts(spec)
    places = fields_of(config.prompt or "") if batch.has_dataset else set[str]()
    return Ready(
        condition=condition,
        spec=spec,
        facts=facts,
        blocks=blocks,
        places=frozenset(places),
        digests=(condition_digest(config, None), condition_digest(config, facts)),
    )


def only_trial(plan: Plan) -> PlannedTrial:
    """Return the one trial of a plan.

    Raises:
        ConfigError: It has more.
    """
    if len(plan) != 1:
        line = (
            f"experiment: makes {len(plan):,} trials, and this sandbox runs one; use "
            "client.run_batch(), which gives every attempt a fresh one"
        )
        raise ConfigError(line, faults=(line,))
    return plan.trial(0)


def _joined(first: str | None, second: str) -> str:
    """Return a command that runs both, the second only if the first succeeded."""
    return f"{{\n{first}\n}} && {{\n{second}\n}}"
