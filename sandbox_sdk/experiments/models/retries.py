"""The one place where a model call is tried again: counted, jittered, bounded in time."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

import anyio
import attrs

from sandbox_sdk.errors import ModelError, ModelRateLimited, ModelTimeout
from sandbox_sdk.experiments.config import Retries
from sandbox_sdk.experiments.models.base import ModelOutput, ModelProvider, ModelRequest

LONGEST_RETRY_AFTER = 120.0
"""Seconds a provider may ask to wait; if it asks for more, the call is not tried again."""

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0

OnRetry = Callable[[ModelError, float, int], Awaitable[None]]
"""Told of each failure that will be tried again, the wait, and how often the call was sent."""


async def generate(
    provider: ModelProvider, request: ModelRequest, retries: Retries, on_retry: OnRetry
) -> ModelOutput:
    """Call a model, again while its failure may pass.

    Args:
        provider: Whose model it is.
        request: The call.
        retries: How often and how long.
        on_retry: Awaited before each wait, so that it can be recorded.

    Raises:
        ModelError: The last failure.
    """
    deadline = time.monotonic() + retries.timeout
    for resend in range(retries.max_retries + 1):
        left = deadline - time.monotonic()
        send = attrs.evolve(
            request, resend=resend, attempt_timeout=max(0.001, min(retries.attempt_timeout, left))
        )
        try:
            output = await provider.generate(send)
        except ModelError as error:
            wait = _wait(error, resend)
            over = time.monotonic() + wait >= deadline
            if not error.retryable or wait > LONGEST_RETRY_AFTER or resend == retries.max_retries:
                raise
            if over:
                raise _out_of_time(error, retries, resend + 1) from error
            await on_retry(error, wait, resend + 1)
            await anyio.sleep(wait)
        else:
            if not resend:
                return output
            usage = attrs.evolve(output.usage, requests=output.usage.requests + resend)
            return attrs.evolve(output, usage=usage)
    raise AssertionError("unreachable: the last failure was raised")


def _wait(error: ModelError, resend: int) -> float:
    """Return the seconds to wait: what the provider asks, else doubling with jitter."""
    if isinstance(error, ModelRateLimited) and error.retry_after is not None:
        return error.retry_after
    # Jitter is to spread clients, not to hide anything.
    return min(_FIRST_WAIT * 2.0**resend, _LONGEST_WAIT) * random.uniform(0.75, 1)  # noqa: S311


def _out_of_time(error: ModelError, retries: Retries, sends: int) -> ModelTimeout:
    return ModelTimeout(
        f"the model call was sent {sends} times within retries.timeout of {retries.timeout:g} s "
        f"and failed each time; the last time: {error.message}",
        model=error.model,
        provider_status=error.provider_status,
        request_id=error.request_id,
    )
