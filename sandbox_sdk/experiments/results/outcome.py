"""How an attempt ends, and what ends it so."""

from __future__ import annotations

import attrs

from sandbox_sdk.errors import ModelError, PolicyDenied, SandboxEnded, SandboxError
from sandbox_sdk.experiments.results.result import Failure, LimitHit
from sandbox_sdk.rules import DENIED
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
    return Failure(type=_denying_rule(error) or error.code, message=error.message)


def is_denied(outcome: Outcome) -> bool:
    """Return whether an operator's rule ended it: no repetition will be allowed either."""
    return outcome.error is not None and outcome.error.type.startswith(DENIED)


def _denying_rule(error: SandboxError) -> str:
    """Return ``policy:`` and the rule's name for what an operator's rule refused or ended."""
    if isinstance(error, PolicyDenied):
        return f"{DENIED}{error.rule}"
    limit = error.ended.limit if isinstance(error, SandboxEnded) and error.ended else None
    return limit if limit is not None and limit.startswith(DENIED) else ""


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
    denied = ended.limit if ended.limit and ended.limit.startswith(DENIED) else None
    return Outcome(state=state, error=Failure(type=denied or ended.kind.value, message=message))
