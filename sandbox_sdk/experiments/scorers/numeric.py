"""The scorer that compares a number in the output with the target."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    verdict,
)
from sandbox_sdk.experiments.scorers.targets import number_of, target_of
from sandbox_sdk.values import Sample

READERS: Mapping[str, fields.Reader] = {
    "target": number_of,
    "which": fields.word("last", "first", "only"),
    "absolute_tolerance": fields.number(0),
    "relative_tolerance": fields.number(0, 1),
}
"""The fields of ``numeric``."""

# Every repeat is bounded, or can only end where the number does, so that the time grows with the
# length of a hostile output and not with its square. A number follows no letter or digit: the 2
# of H2O is none, and 10-3 holds 10 and 3.
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,8}(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
    r"(?:[eE][-+]?[0-9]++)?"
)


@attrs.frozen(kw_only=True)
class NumericScorer:
    """Compares a number in the output with the target.

    Attributes:
        name: Its name.
        target: The number; by default the sample's.
        which: The ``last`` or ``first`` number in the output counts, or the ``only`` one.
        absolute_tolerance: The largest difference that is still right.
        relative_tolerance: The same as a share of the larger of both; either is enough.
    """

    name: str
    target: float | None = None
    which: Literal["last", "first", "only"] = "last"
    absolute_tolerance: float = 0.0
    relative_tolerance: float = 1e-9
    needs_sandbox: bool = attrs.field(default=False, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        settings: dict[str, Any] = {
            "target": self.target,
            "which": self.which,
            "absolute_tolerance": float(self.absolute_tolerance),
            "relative_tolerance": float(self.relative_tolerance),
        }
        return scorer_digest("numeric", 1, **settings)

    def check(self, sample: Sample, path: str) -> None:
        """Go on if there is a number to compare with.

        Raises:
            ConfigError: There is none.
        """
        number_of(target_of(self.target, sample), f"{path}.target")

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return 1 if the number that counts is as near to the target as asked."""
        wanted = number_of(target_of(self.target, submission.sample), "sample.target")
        found = list(numbers_in(submission.output))
        if not found:
            return verdict(self, 0, label="no_number", explanation="the output holds no number")
        if self.which == "only" and len(found) > 1:
            text = f"the output holds {len(found):,} numbers, not one"
            return verdict(self, 0, label="many_numbers", explanation=text)
        number = found[-1] if self.which == "last" else found[0]
        right = math.isclose(
            number, wanted, rel_tol=self.relative_tolerance, abs_tol=self.absolute_tolerance
        )
        return verdict(self, right, answer=f"{number:.15g}")


def numbers_in(text: str) -> Iterator[float]:
    """Yield the numbers that a text holds: ``1,234.5``, ``-3``, ``.5``, ``6e23``, ``7 %`` as 7."""
    for match in _NUMBER.finditer(text):
        number = float(match[0].replace(",", "").replace("\u2212", "-"))
        if math.isfinite(number):
            yield number
