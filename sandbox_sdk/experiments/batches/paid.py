"""Answers that were bought by an attempt that did not come to its end, and are not bought again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio.to_thread
import attrs

from sandbox_sdk.experiments.models.base import ModelOutput, ToolUse
from sandbox_sdk.experiments.records.events import Event
from sandbox_sdk.experiments.records.recorder import Recorder
from sandbox_sdk.experiments.usage import TokenUsage

log = logging.getLogger("sandbox_sdk.experiments")

_FIELDS = tuple(field.name for field in attrs.fields(ModelOutput))


@attrs.frozen(kw_only=True)
class Paid:
    """A recorded answer.

    Attributes:
        output: The answer.
        duration: Seconds that it took.
        at: When it was bought, in seconds since the epoch.
    """

    output: ModelOutput
    duration: float
    at: float


class PaidAnswers:
    """The answers of a trial's earlier attempts, each given where the same call is made again.

    After the first call that differs none is given: what follows is another conversation.

    Args:
        read: Returns the event at a place of the journal; blocks on the disk.
        known: Number of the call -> digest of its request, and where its answer stands.
    """

    def __init__(self, read: Callable[[int], Event], known: Mapping[int, tuple[str, int]]) -> None:
        self._read = read
        self._known = dict(known)

    async def answer(self, call: int, request: str, recorder: Recorder) -> Paid | None:
        """Return the answer to a call, or ``None`` if it has to be bought.

        Raises:
            StateError: The journal cannot be read.
        """
        if call not in self._known:
            return None
        expected, start = self._known[call]
        if expected != request:
            self._known.clear()
            log.warning("replay.diverged", extra={"call": call, "request": request})
            recorder.note("replay.diverged", call=call, expected=expected, request=request)
            return None
        event = await anyio.to_thread.run_sync(self._read, start)
        data = event.data
        return Paid(output=output_of(data), duration=data["duration"], at=event.time)


# Any: what this process, or one before it, recorded of an answer.
def output_of(data: Mapping[str, Any]) -> ModelOutput:
    """Return the answer that a ``model.responded`` holds."""
    fields = {name: data[name] for name in _FIELDS}
    for name in ("texts", "thinking", "warnings"):
        fields[name] = tuple(fields[name])
    fields["usage"] = TokenUsage(**fields["usage"])
    fields["tool_uses"] = tuple(ToolUse(**use) for use in fields["tool_uses"])
    return ModelOutput(**fields)
