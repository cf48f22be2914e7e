"""What a scorer is, what it is given, and what it gives back.

A score is a fact about a submission. Where the scorer itself failed there is none: its value is
``None``, never 0, and it does not enter any rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import attrs

from sandbox_sdk.errors import ModelError, SandboxError, StateError
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models.base import ModelOutput
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.values import Sample, Workplace

UNSCORED = "unscored"
"""The label of a score that could not be had."""

LONGEST_SHOWN = 2000
"""Most characters of an answer or explanation that a score keeps."""


# Any, below: messages, targets and metadata are JSON.
@attrs.frozen(kw_only=True)
class Submission:
    """What a trial produced, and the sample that it answers.

    Attributes:
        output: The model's last answer, or what the code wrote.
        sample: The sample.
        artifacts: Path -> content of the files that the experiment declared as ``artifacts``.
        messages: The whole conversation, in OpenAI's form.
    """

    output: str = attrs.field(repr=False)
    sample: Sample
    artifacts: Mapping[str, bytes] = attrs.field(factory=dict[str, bytes], repr=False)
    messages: Sequence[Mapping[str, Any]] = attrs.field(default=(), repr=False)


def _finite(_: object, __: object, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"a score's value must be a finite number or None, not {value}")


@attrs.frozen(kw_only=True)
class Score:
    """What one scorer says of one submission.

    Attributes:
        scorer: The scorer's name.
        digest: The scorer's digest: which code and settings said it.
        value: 1 for right, 0 for wrong, or between; ``None`` if the scorer itself failed.
        label: The value in a word, for example ``correct``, ``timeout`` or ``unscored``.
        answer: What in the submission was judged.
        explanation: Why, for people. Parts of it may be the submission's own words.
        metadata: What else there is to say, as JSON.
    """

    scorer: str
    digest: str = attrs.field(repr=False)
    value: float | None = attrs.field(default=None, validator=_finite)
    label: str | None = None
    answer: str | None = attrs.field(default=None, repr=False)
    explanation: str | None = attrs.field(default=None, repr=False)
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)

    @property
    def counted(self) -> bool:
        """Whether it enters rates: the scorer came to a verdict."""
        return self.value is not None

    def to_json(self) -> dict[str, Any]:
        """Return the score as JSON."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Score:
        """Return the score that ``to_json`` wrote; fields of a newer version are ignored.

        Raises:
            ValueError: It is none.
        """
        names = {field.name for field in attrs.fields(cls)}
        try:
            return cls(**{name: value for name, value in data.items() if name in names})
        except TypeError as error:
            raise ValueError(f"not a score: {error}") from None


class SandboxMaker(Protocol):
    """Makes the fresh sandboxes that a scorer runs code in, within the trial's own slot."""

    def fresh(
        self, *, files: Mapping[str, str | bytes], **settings: Any
    ) -> AbstractAsyncContextManager[Workplace]:
        """Return a sandbox that holds just ``files`` and is deleted with the context.

        Args:
            files: Path in the workspace -> content.
            settings: ``create_sandbox``'s arguments of the same names.

        Raises:
            SandboxError: There is none to be had.
        """
        ...


class Graders(Protocol):
    """Calls the models that grade: journalled with ``role: grader``, and budgeted."""

    async def grade(
        self, config: ExperimentConfig, messages: Sequence[Mapping[str, Any]], *, key: str
    ) -> ModelOutput:
        """Return the model's answer; one that is known for ``key`` is not asked for again.

        Args:
            config: The experiment that asks, whose own prompt is not looked at.
            messages: What is asked.
            key: SHA-256 over the scorer's digest and all that it asks about.

        Raises:
            ModelError: There was no answer.
        """
        ...


class Scorer(Protocol):
    """Judges submissions. It holds no state of a run and may be used by many trials at once."""

    @property
    def name(self) -> str:
        """Its name, which heads its column."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its code's version and every setting but the name."""
        ...

    @property
    def needs_sandbox(self) -> bool:
        """Whether it runs anything in a sandbox."""
        ...

    @property
    def model(self) -> str | None:
        """The model that it asks, where it asks one."""
        ...

    def check(self, sample: Sample, path: str) -> None:
        """Go on if the sample has what this scorer needs. Called before any model is paid.

        Raises:
            ConfigError: It has not; ``path`` is where the sample stands.
        """

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return what it says of the submission; a failure of its own is an unscored ``Score``.

        Raises:
            SandboxError: No sandbox or model could be had, or a sandbox died.
        """
        ...


async def scored(
    scorer: Scorer,
    submission: Submission,
    *,
    sandboxes: SandboxMaker | None = None,
    models: Graders | None = None,
) -> Score:
    """Return the scorer's verdict, or an unscored one where what it needs could not be had.

    Raises:
        StateError: Something could not be recorded; that is not for a scorer to swallow.
    """
    try:
        return await scorer.score(submission, sandboxes=sandboxes, models=models)
    except StateError:
        raise
    except (SandboxError, ModelError) as error:
        return unscored(scorer, f"{error.code}: {error.message}")


def unscored(scorer: Scorer, reason: str, metadata: Mapping[str, Any] | None = None) -> Score:
    """Return the score of a scorer that came to no verdict."""
    return Score(
        scorer=scorer.name,
        digest=scorer.digest,
        label=UNSCORED,
        explanation=short(reason),
        metadata=metadata or {},
    )


def verdict(
    scorer: Scorer,
    value: float | bool,
    *,
    label: str | None = None,
    answer: str | None = None,
    explanation: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Score:
    """Return a score; without a label, 1 is ``correct``, 0 ``incorrect``, else ``partial``."""
    number = float(value)
    words = {1.0: "correct", 0.0: "incorrect"}
    return Score(
        scorer=scorer.name,
        digest=scorer.digest,
        value=number,
        label=label or words.get(number, "partial"),
        answer=None if answer is None else short(answer),
        explanation=None if explanation is None else short(explanation),
        metadata=metadata or {},
    )


def short(text: str) -> str:
    """Return a text that a score may keep: valid Unicode, its middle left out if it is long."""
    if len(text) > LONGEST_SHOWN:
        half = LONGEST_SHOWN // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"
    return text.encode("utf-8", "replace").decode()


def scorer_digest(kind: str, version: int, **settings: Any) -> str:
    """Return the digest of a scorer.

    Args:
        kind: The scorer's type.
        version: Raised whenever the same settings would judge differently.
        settings: Everything that decides its verdict, as JSON.
    """
    return digest({"scorer": kind, "version": version, "settings": settings})
