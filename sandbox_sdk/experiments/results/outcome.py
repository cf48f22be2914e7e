"""How an attempt ends, and what ends it so."""

from __future__ import annotations

import attrs

from sandbox_sdk.errors import ModelError, SandboxError
from sandbox_sdk.experiments.results.result import Failure, LimitHit
from sandbox_sdk.values import ATTEMPT_STATE, AttemptState, Ended


@attrs.frozen(kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        state: Exactly one of the states.
        limit: The limit that ended it.
        error: The error that ended it.
        raises: The error to raise to the caller, where the config itself was wrong.
    """

    state: AttemptState
    limit: LimitHit | None = None
    error: Failure | None = None
    raises: SandboxError | None = None


class Stopped(Exception):
    """Ends an attempt's conversation with an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.state)
        self.outcome = outcome


COMPLETED = Outcome(state=AttemptState.COMPLETED)


def stopped_by(kind: str, limit: float | None, used: float | None) -> Outcome:
    """Return the outcome of an attempt that a limit of its config ended."""
    state = AttemptState.TIMEOUT if kind == "time" else AttemptState.LIMIT
    return Outcome(state=state, limit=LimitHit(type=kind, limit=limit, used=used))


def failed(state: AttemptState, error: SandboxError) -> Outcome:
    """Return the outcome of an attempt that an error ended."""
    return Outcome(state=state, error=failure_of(error))


def failure_of(error: SandboxError) -> Failure:
    """Return an error as a value."""
    if isinstance(error, ModelError):
        return Failure(
            type=error.code,
            message=error.message,
            retryable=error.retryable,
            provider_status=error.provider_status,
            request_id=error.request_id,
        )
    return Failure(type=error.code, message=error.message)


_LIMITED = frozenset({AttemptState.TIMEOUT, AttemptState.OOM, AttemptState.LIMIT})


def decided_by(ended: Ended, text: str) -> Outcome:
    """Return the outcome of an attempt that the end of its one program decides.

    Args:
        ended: How it ended.
        text: What it wrote; its last line says why it failed.
    """
    state = ATTEMPT_STATE[ended.kind]
    if state is AttemptState.COMPLETED:
        return COMPLETED
    if state in _LIMITED:
        hit = LimitHit(type=ended.limit or ended.kind.value, limit=ended.limit_value)
        return Outcome(state=state, limit=hit)
    message = f"the program ended {ended}"
    if lines := text.strip().splitlines():
        message += f"; its last line: {lines[-1][:300]}"
    return Outcome(state=state, error=Failure(type=ended.kind.value, message=message))
