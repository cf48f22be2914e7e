"""The scorer that looks for a regular expression in the output."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    unscored,
    verdict,
)
from sandbox_sdk.experiments.scorers.checker import CHECK_SECONDS, CheckFailed, shared_checker
from sandbox_sdk.experiments.scorers.targets import target_of, texts_of
from sandbox_sdk.parse import Faults, describe, fault
from sandbox_sdk.values import Sample

_LONGEST_PATTERN = 10_000


def read_pattern(value: object, path: str) -> str:
    """Return a regular expression of Python's ``re``.

    Raises:
        ConfigError: It is none.
    """
    found = fields.text(value, path)
    if len(found) > _LONGEST_PATTERN:
        raise fault(path, f"is longer than the {_LONGEST_PATTERN:,} characters a pattern may have")
    _compiled(found, path)
    return found


def _compiled(pattern: str, path: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():  # such as one of a set that a later Python may read anew
            warnings.simplefilter("ignore")
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise fault(path, f"is no regular expression: {error}") from None


def _group(value: object, path: str) -> int | str:
    if isinstance(value, str):
        return fields.line(value, path)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise fault(path, f"must be the number or name of a group, not {describe(value)}")


READERS: Mapping[str, fields.Reader] = {
    "pattern": read_pattern,
    "group": _group,
    "target": texts_of,
    "ignore_case": fields.flag,
    "multiline": fields.flag,
    "dotall": fields.flag,
    "timeout": fields.number(0, 60, above=True),
}
"""The fields of ``regex``."""


def faults_of(found: Mapping[str, Any], path: str) -> Faults:
    """Return the faults of fields that do not go together."""
    faults = Faults()
    if "pattern" not in found:
        faults.add(f"{path}.pattern", "is required")
        return faults
    group = found.get("group")
    pattern = _compiled(found["pattern"], path)
    if group is None and "target" in found:
        faults.add(f"{path}.target", 'needs "group", which says what is compared with it')
    elif isinstance(group, str) and group not in pattern.groupindex:
        faults.add(f"{path}.group", f"the pattern has no group {group!r}")
    elif isinstance(group, int) and group > pattern.groups:
        faults.add(f"{path}.group", f"the pattern has {pattern.groups} groups")
    return faults


@attrs.frozen(kw_only=True)
class RegexScorer:
    """Looks for a pattern, and compares a group of it with the target where one is named.

    Attributes:
        name: Its name.
        pattern: A regular expression of Python's ``re``, looked for anywhere.
        group: The group that must be one of the target's texts; 0 is the whole match. Without
            it, a match is enough.
        target: The texts; by default the sample's.
        ignore_case: ``re.IGNORECASE``.
        multiline: ``re.MULTILINE``.
        dotall: ``re.DOTALL``.
        timeout: Seconds that one search may take.
    """

    name: str
    pattern: str
    group: int | str | None = None
    target: tuple[str, ...] | None = None
    ignore_case: bool = False
    multiline: bool = False
    dotall: bool = False
    timeout: float = CHECK_SECONDS
    needs_sandbox: bool = attrs.field(default=False, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        settings = {"pattern": self.pattern, "group": self.group, "target": self.target}
        return scorer_digest("regex", 1, **settings, flags=self._flags)

    @property
    def _flags(self) -> int:
        flags = re.IGNORECASE if self.ignore_case else re.NOFLAG
        flags |= re.MULTILINE if self.multiline else re.NOFLAG
        flags |= re.DOTALL if self.dotall else re.NOFLAG
        return int(flags)

    def check(self, sample: Sample, path: str) -> None:
        """Go on if there are texts to compare with, where a group is compared.

        Raises:
            ConfigError: There are none.
        """
        if self.group is not None:
            texts_of(target_of(self.target, sample), f"{path}.target")

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return 1 if the pattern matches and its group is right; unscored if it takes too long."""
        try:
            found = await shared_checker().run(
                "search",
                seconds=self.timeout,
                pattern=self.pattern,
                flags=self._flags,
                text=submission.output,
            )
        except CheckFailed as error:
            return unscored(self, str(error))
        if not found["found"]:
            return verdict(self, 0, label="no_match")
        if self.group is None:
            return verdict(self, 1, answer=found["match"])
        answer = self._answer(found)
        wanted = texts_of(target_of(self.target, submission.sample), "sample.target")
        return verdict(self, answer in wanted, answer=answer)

    def _answer(self, found: Mapping[str, Any]) -> str | None:
        if self.group == 0:
            answer: str | None = found["match"]
        elif isinstance(self.group, int):
            answer = found["groups"][self.group - 1]
        else:
            answer = found["named"][self.group]
        return answer
