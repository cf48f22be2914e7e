"""When a sandbox was last used, which is what idleness is judged by."""

from __future__ import annotations

import anyio
import attrs

from sandbox_sdk.agent import frames


@attrs.define(eq=False)
class Activity:
    """When a sandbox was last used, and which calls are in flight.

    Attributes:
        calls: Exchanges that run something: a kept context does from its input to its result.
        last: When the last frame passed, on ``anyio.current_time``'s clock.
    """

    calls: set[int] = attrs.field(factory=set)
    last: float = attrs.field(factory=anyio.current_time)

    def begin(self, exchange: int) -> None:
        """Note that an exchange was given something to do."""
        self.last = anyio.current_time()
        self.calls.add(exchange)

    def end(self, exchange: int) -> None:
        """Note that an exchange has done what it was given."""
        self.last = anyio.current_time()
        self.calls.discard(exchange)

    def sent(self, frame: frames.Frame) -> None:
        """Take a frame to the agent into account."""
        if frame.kind in (frames.OPEN, frames.DATA):
            self.begin(frame.exchange)
        else:
            self.last = anyio.current_time()

    def received(self, frame: frames.Frame) -> None:
        """Take a frame from the agent into account."""
        if frame.kind == frames.END or (
            frame.kind == frames.DATA and frame.stream == frames.RESULT
        ):
            self.end(frame.exchange)
        else:
            self.last = anyio.current_time()
