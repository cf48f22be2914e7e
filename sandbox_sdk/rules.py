"""An operator's rules: each narrows what sandboxes may be and do, and none lifts another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Literal

import attrs

from sandbox_sdk.errors import PolicyDenied
from sandbox_sdk.resources import RESOURCE_FIELDS
from sandbox_sdk.values import (
    Ended,
    EndKind,
    Isolation,
    Limit,
    RuntimeName,
    SandboxSpec,
    SecurityLevel,
)

Protection = Literal["encryption", "audit"]
"""What a rule may require of the client."""

_WEAKEST_FIRST: tuple[SecurityLevel, ...] = ("unsafe", "low", "medium", "high", "maximum")


@attrs.frozen(kw_only=True)
class Rule:
    """One rule; what it leaves out it does not bound.

    Attributes:
        name: Its name, by which a denial is known: ``policy:<name>``.
        source: Where it was written.
        metadata: It is about sandboxes whose metadata has all of these, each a shell pattern.
        clients: It is about these callers only, each a shell pattern of ``uid N``; none is
            everybody.
        minimum_level: The weakest security level.
        templates: Shell patterns, of which one fits the template's name or key.
        runtimes: What may build a sandbox.
        maximum: Name of a resource -> the most of it.
        lifetime: Seconds that a sandbox may live, all its set-ups together.
        concurrency: Sandboxes of this rule that may run at once in one client.
        cost: US dollars that models' calls may cost, all runs of the state folder together.
        require: What must be in force besides.
    """

    name: str
    source: str = ""
    metadata: Mapping[str, str] = attrs.field(factory=dict[str, str])
    clients: tuple[str, ...] = ()
    minimum_level: SecurityLevel | None = None
    templates: tuple[str, ...] | None = None
    runtimes: tuple[RuntimeName, ...] | None = None
    maximum: Mapping[str, float] = attrs.field(factory=dict[str, float])
    lifetime: float | None = None
    concurrency: int | None = None
    cost: Decimal | None = None
    require: frozenset[Protection] = frozenset()

    def is_about(self, metadata: Mapping[str, str], client: str) -> bool:
        """Return whether it is about a caller's sandboxes of this metadata."""
        if self.clients and not any(fnmatchcase(client, each) for each in self.clients):
            return False
        return all(
            name in metadata and fnmatchcase(metadata[name], pattern)
            for name, pattern in self.metadata.items()
        )

    def denied(self, reason: str, sandbox_id: str | None = None) -> PolicyDenied:
        """Return the error for what this rule does not allow."""
        written = f" ({self.source})" if self.source else ""
        return PolicyDenied(
            f'rule "{self.name}"{written} does not allow it: {reason}',
            rule=self.name,
            sandbox_id=sandbox_id,
        )


@attrs.frozen(kw_only=True)
class Circumstances:
    """What a rule has to know besides how a sandbox is asked for.

    Attributes:
        protections: What is in force of what a rule may require.
        lived: Seconds that the sandbox has lived.
        running: Other sandboxes that the rule is about, and that run.
        spent: US dollars spent under the rule.
    """

    protections: frozenset[Protection] = frozenset()
    lived: float = 0.0
    running: int = 0
    spent: Decimal = Decimal(0)


def refusals_of_spec(rule: Rule, spec: SandboxSpec, names: Collection[str]) -> Iterator[str]:
    """Yield why a rule does not allow a sandbox that is asked for so.

    Args:
        rule: A rule that is about it.
        spec: How it is asked for.
        names: What its template is known by now: its key, and the names that mean it.
    """
    if rule.minimum_level is not None and _is_weaker(spec.security_level, rule.minimum_level):
        yield f'the level must be at least "{rule.minimum_level}", not "{spec.security_level}"'
    if rule.templates is not None and not _fits(names, rule.templates):
        yield f"the template must be one of {', '.join(rule.templates)}, not {', '.join(names)}"
    if rule.runtimes is not None and spec.runtime is not None and spec.runtime not in rule.runtimes:
        yield f"the runtime must be one of {', '.join(rule.runtimes)}, not {spec.runtime}"
    for name, most in rule.maximum.items():
        if (asked := getattr(spec.resources, RESOURCE_FIELDS[name])) > most:
            yield f"{name} must be at most {most:g}, not {asked:g}"
    if rule.lifetime is not None and (spec.timeout is None or spec.timeout > rule.lifetime):
        asked = "none" if spec.timeout is None else f"{spec.timeout:g}"
        yield f"timeout must be at most {rule.lifetime:g} seconds, not {asked}"


def refusals_of_circumstances(rule: Rule, now: Circumstances, *, starts: bool) -> Iterator[str]:
    """Yield why a rule allows nothing more now.

    Args:
        rule: A rule that is about the sandbox.
        now: How things stand.
        starts: Whether the sandbox is to start, or runs.
    """
    for lacking in sorted(rule.require - now.protections):
        yield _LACKING[lacking]
    if rule.lifetime is not None and now.lived >= rule.lifetime:
        yield f"the sandbox has lived for its {rule.lifetime:g} seconds"
    yield from refusals_of_spending(rule, now.spent)
    if starts and rule.concurrency is not None and now.running >= rule.concurrency:
        yield f"{rule.concurrency} sandboxes may run at once, and so many do"


def refusals_of_spending(rule: Rule, spent: Decimal) -> Iterator[str]:
    """Yield why a rule allows no more to be spent, in US dollars."""
    if rule.cost is not None and spent >= rule.cost:
        yield f"${rule.cost} were to be spent at most, and ${spent} are"


def refusals_of_standing(
    rule: Rule, isolation: Isolation, limits: Iterable[Limit]
) -> Iterator[str]:
    """Yield why a rule does not allow what is in force in a sandbox that runs."""
    if rule.runtimes is not None and isolation.runtime not in rule.runtimes:
        yield f"the runtime must be one of {', '.join(rule.runtimes)}, not {isolation.runtime}"
    if rule.minimum_level is not None and _is_weaker(isolation.level, rule.minimum_level):
        yield f'the level must be at least "{rule.minimum_level}", not "{isolation.level}"'
    for limit in limits:
        most = rule.maximum.get(limit.name)
        if most is not None and (
            limit.value is None or limit.value > most or limit.held_by == "none"
        ):
            found = "unbounded" if limit.value is None else f"{limit.value:g}"
            what = (
                found if limit.held_by != "none" else f"{found}, which nothing on this host holds"
            )
            yield f"{limit.name} must be at most {most:g}, and in force is {what}"


def ended_by(denial: PolicyDenied) -> Ended:
    """Return how a sandbox ended that a rule did not allow: no fault of what ran in it."""
    return Ended(kind=EndKind.INFRA, limit=f"{DENIED}{denial.rule}", detail=denial.message)


DENIED = "policy:"
"""Begins the name of the limit that a rule of an operator is."""

_LACKING: Mapping[Protection, str] = {
    "encryption": "what is left on disk must be encrypted: set an encryption key, or ask for the "
    'level "high"',
    "audit": "calls must be recorded: set enable_audit_logs, or see why the log cannot be written",
}


def _is_weaker(level: SecurityLevel, least: SecurityLevel) -> bool:
    return _WEAKEST_FIRST.index(level) < _WEAKEST_FIRST.index(least)


def _fits(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
