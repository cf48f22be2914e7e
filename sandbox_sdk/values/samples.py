"""One row of a dataset, as trials and scorers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


# Any: a target, metadata and messages are JSON.
@attrs.frozen(kw_only=True)
class Sample:
    """One row of a dataset. Its target is for scorers: no model and no sandbox sees it.

    Attributes:
        id: Its name, unique in the dataset.
        prompt: What the model is asked, where the row's ``input`` is a text.
        messages: The conversation so far in OpenAI's form, where ``input`` is a list.
        target: What a scorer compares with.
        metadata: The user's own words; prompts may hold them as ``{metadata.NAME}``.
        files: Path in the workspace -> content, written before anything runs.
        setup: A bash command that is run before the model or code.
    """

    id: str
    prompt: str | None = attrs.field(default=None, repr=False)
    messages: tuple[Mapping[str, Any], ...] = attrs.field(default=(), repr=False)
    target: Any = attrs.field(default=None, repr=False)
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    files: Mapping[str, str | bytes] = attrs.field(factory=dict[str, str | bytes], repr=False)
    setup: str | None = attrs.field(default=None, repr=False)
