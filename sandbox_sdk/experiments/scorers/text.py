"""Scorers that compare the output with texts: the whole of it, or a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

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
from sandbox_sdk.experiments.scorers.targets import target_of, texts_of
from sandbox_sdk.parse import fault
from sandbox_sdk.values import Sample

READERS: Mapping[str, fields.Reader] = {
    "target": texts_of,
    "ignore_case": fields.flag,
    "strip": fields.flag,
}
"""The fields of ``exact`` and ``includes``."""


@attrs.frozen(kw_only=True)
class TextScorer:
    """Compares the output with the target's texts, any of which is right.

    Attributes:
        name: Its name.
        kind: ``exact`` wants the whole output, ``includes`` a part of it.
        target: The texts; by default the sample's.
        ignore_case: Whether ``A`` equals ``a``, by Unicode's case folding.
        strip: Whether white space around output and texts is left out.
    """

    name: str
    kind: Literal["exact", "includes"]
    target: tuple[str, ...] | None = None
    ignore_case: bool = False
    strip: bool = True
    needs_sandbox: bool = attrs.field(default=False, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        return scorer_digest(
            self.kind, 1, target=self.target, ignore_case=self.ignore_case, strip=self.strip
        )

    def check(self, sample: Sample, path: str) -> None:
        """Go on if there are texts to compare with.

        Raises:
            ConfigError: There are none.
        """
        self._wanted(sample, path)

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return 1 if a text of the target is the output, or in it."""
        output = self._folded(submission.output)
        wanted = self._wanted(submission.sample, "sample")
        if self.kind == "exact":
            found = [text for text in wanted if text == output]
        else:
            found = [text for text in wanted if text in output]
        return verdict(self, bool(found), answer=submission.output)

    def _wanted(self, sample: Sample, path: str) -> tuple[str, ...]:
        texts = texts_of(target_of(self.target, sample), f"{path}.target")
        wanted = tuple(map(self._folded, texts))
        if self.kind == "includes" and "" in wanted:
            raise fault(f"{path}.target", "holds an empty text, which is in every output")
        return wanted

    def _folded(self, text: str) -> str:
        text = text.strip() if self.strip else text
        return text.casefold() if self.ignore_case else text
