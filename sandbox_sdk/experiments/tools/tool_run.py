"""What came of running a tool, before it is cut to what a model sees."""

from __future__ import annotations

import attrs

from sandbox_sdk.experiments.results.result import ToolError
from sandbox_sdk.values import Ended


@attrs.frozen(kw_only=True)
class ToolRun:
    """What a tool did.

    Attributes:
        text: What it wrote or returned.
        ended: How it ended; ``None`` where nothing ran that could end otherwise than by the error.
        error: Why it failed, where it did.
    """

    text: str
    ended: Ended | None = None
    error: ToolError | None = None
