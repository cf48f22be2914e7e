"""Whether a budget can be kept at all, told before the first call of a run."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from sandbox_sdk.experiments.budgets.budget import unpriced
from sandbox_sdk.experiments.budgets.budget_limits import BudgetLimits
from sandbox_sdk.experiments.budgets.prices import PricedModel, Prices
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.parse import Faults

_BOUNDS = frozenset({"max_tokens", "max_completion_tokens"})


@attrs.frozen(kw_only=True)
class BudgetedModel:
    """A model that a run will ask.

    Attributes:
        path: Where the experiment stands in what the user wrote.
        config: The experiment that asks it.
        model: Whose price it has.
    """

    path: str
    config: ExperimentConfig
    model: PricedModel


def check_budget(limits: BudgetLimits, models: Iterable[BudgetedModel], prices: Prices) -> None:
    """Go on if the budget can be kept with every model.

    Raises:
        ConfigError: A bound of cost on a model without a price; a hard budget with calls that
            nothing bounds. All faults at once.
    """
    faults = Faults()
    for entry in models:
        config = entry.config
        if limits.cost_bounded and not prices.knows(entry.model):
            faults.add(f"{entry.path}.model", unpriced(entry.model))
        if not limits.hard:
            continue
        if config.limits.tokens is None and "max_tokens" not in config.parameters:
            said = 'is required with "hard": without it a call may answer any number of tokens'
            faults.add(f"{entry.path}.parameters.max_tokens", said)
        for name in sorted(_BOUNDS.intersection(config.parameters.get("extra_body", ()))):
            said = f'does not go with "hard": give "max_tokens" in place of {name!r} here'
            faults.add(f"{entry.path}.parameters.extra_body.{name}", said)
        if config.drop_unsupported:
            said = 'does not go with "hard": a model could have "max_tokens" left out'
            faults.add(f"{entry.path}.drop_unsupported", said)
    faults.check()
