"""How commands, code, sandboxes and attempts end."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping
from enum import StrEnum

import attrs


class EndKind(StrEnum):
    """How a command, a code run or a sandbox ended.

    ``ok``, ``nonzero`` and ``signal`` are the program's own doing; all others are verdicts of
    the host, which a program cannot choose.
    """

    OK = "ok"
    NONZERO = "nonzero"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    OOM = "oom"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT_LIMIT = "output_limit"
    POLICY_DENIED = "policy_denied"
    CANCELLED = "cancelled"
    SANDBOX_DIED = "sandbox_died"
    INFRA = "infra"


@attrs.frozen(kw_only=True)
class Ended:
    """The one way in which something ended.

    Attributes:
        kind: What ended it.
        exit_code: The exit code, where it exited.
        signal: The signal, where one ended it.
        limit: The name of the limit that was hit, for example ``memory`` or ``timeout``.
        limit_value: That limit's value: bytes, seconds or a count.
        truncated: Whether output was lost.
        bytes_seen: Output bytes that reached the host.
        bytes_kept: Output bytes in the result.
        safe_to_retry: Whether it is certain that nothing of it ran.
        detail: One sentence for people, where there is more to say.
    """

    kind: EndKind
    exit_code: int | None = None
    signal: int | None = None
    limit: str | None = None
    limit_value: float | None = None
    truncated: bool = False
    bytes_seen: int = 0
    bytes_kept: int = 0
    safe_to_retry: bool = False
    detail: str = ""

    def __str__(self) -> str:
        text = self.kind.value
        if self.exit_code:
            text += f" (exit code {self.exit_code})"
        elif self.signal is not None:
            text += f" ({_signal_name(self.signal)})"
        elif self.limit is not None:
            text += (
                f" ({self.limit} {self.limit_value:g})" if self.limit_value else f" ({self.limit})"
            )
        return f"{text}: {self.detail}" if self.detail else text


class AttemptState(StrEnum):
    """How one attempt of a trial ended. Only those in ``COUNTED`` enter a score's denominator."""

    COMPLETED = "completed"
    AGENT_ERROR = "agent_error"
    TIMEOUT = "timeout"
    OOM = "oom"
    LIMIT = "limit"
    POLICY_DENIED = "policy_denied"
    MODEL_ERROR = "model_error"
    INFRA_ERROR = "infra_error"
    CANCELLED = "cancelled"
    BUDGET = "budget"
    LOST = "lost"


COUNTED = frozenset(
    {
        AttemptState.COMPLETED,
        AttemptState.AGENT_ERROR,
        AttemptState.TIMEOUT,
        AttemptState.OOM,
        AttemptState.LIMIT,
        AttemptState.POLICY_DENIED,
    }
)
"""Attempt states that count in a score's denominator by default."""

ATTEMPT_STATE: Mapping[EndKind, AttemptState] = {
    EndKind.OK: AttemptState.COMPLETED,
    EndKind.NONZERO: AttemptState.AGENT_ERROR,
    EndKind.SIGNAL: AttemptState.AGENT_ERROR,
    EndKind.TIMEOUT: AttemptState.TIMEOUT,
    EndKind.OOM: AttemptState.OOM,
    EndKind.PIDS: AttemptState.LIMIT,
    EndKind.DISK: AttemptState.LIMIT,
    EndKind.OUTPUT_LIMIT: AttemptState.LIMIT,
    EndKind.POLICY_DENIED: AttemptState.POLICY_DENIED,
    EndKind.CANCELLED: AttemptState.CANCELLED,
    EndKind.SANDBOX_DIED: AttemptState.INFRA_ERROR,
    EndKind.INFRA: AttemptState.INFRA_ERROR,
}
"""What the end of an attempt's decisive command or code makes of the attempt; total."""


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
