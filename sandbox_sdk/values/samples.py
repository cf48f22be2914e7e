"""One row of a dataset: what is asked, and what a right answer is measured by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


# Any: a target and metadata are JSON, whose shape the scorers and the user decide.
@attrs.frozen(kw_only=True)
class Sample:
    """One row of a dataset.

    Attributes:
        id: Its name, unique in its dataset.
        prompt: What is asked.
        target: What a right answer is measured by: a text, several, a number, or other JSON.
        metadata: Whatever the user wants kept with it; scorers may read it.
        files: Path in the workspace -> content, written before the model is asked.
        setup: A command run in the workspace before the model is asked.
    """

    id: str
    prompt: str | None = attrs.field(default=None, repr=False)
    target: Any = attrs.field(default=None, repr=False)
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    files: Mapping[str, str | bytes] = attrs.field(factory=dict[str, str | bytes], repr=False)
    setup: str | None = attrs.field(default=None, repr=False)
