"""What attacks share by name: where they are tried, their programs, and how one is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs

from sandbox_sdk.client import AsyncSandboxClient

PROGRAMS = Path(__file__).parent / "attacks" / "programs"

Inside = Callable[..., Awaitable[dict[str, str]]]
"""Runs an attack program in the sandbox: its name and arguments -> what it told."""

Outside = Callable[..., dict[str, str]]
"""Runs one on the host, where it must work."""

OpenClient = Callable[[], Awaitable[AsyncSandboxClient]]
"""Opens another client, whose launcher starts with what is in force by then."""

LIMITS = ("memory", "cpu", "pids")
"""What a plain user can have bounded only where a control group was delegated to them."""


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of sandbox that is attacked.

    Attributes:
        runtime: What makes it.
        level: Its security level.
        waive: What it may go without where the host or the runtime cannot have it; without
            these names it is refused there (``test_cases.py``). All walls it has stay as they are.
    """

    runtime: str
    level: str
    waive: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.runtime}-{self.level}"

    @property
    def settings(self) -> dict[str, object]:
        """The settings of a client whose sandboxes are of this kind."""
        return {"runtime": self.runtime, "security": {"level": self.level}}


KINDS = (
    Kind(runtime="zygote", level="medium"),
    Kind(runtime="zygote", level="high", waive=LIMITS),
    Kind(runtime="bubblewrap", level="medium"),
    Kind(runtime="bubblewrap", level="high", waive=(*LIMITS, "disk", "landlock")),
)
"""Every kind of sandbox that this version offers."""
