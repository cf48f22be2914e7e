"""What went wrong in a call of a model over HTTP, in our words and classes."""

from __future__ import annotations

import importlib
import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    ModelRateLimited,
    ModelTimeout,
    ModelUnavailable,
    UnsupportedParameter,
)
from sandbox_sdk.experiments.models.base import ModelRequest
from sandbox_sdk.experiments.models.dialect import Server
from sandbox_sdk.experiments.models.reach import reason_of
from sandbox_sdk.experiments.records.redaction import REDACTED, Redactor

_CONTEXT = re.compile(
    r"context.length|context.size|context.window|maximum context|prompt is too long", re.IGNORECASE
)
_GONE = re.compile(
    r"deprecat|decommission|retired|no longer|does not exist|not found|unknown model"
)
_REFUSED = re.compile(
    r"unsupported|not supported|does not support|unrecognized|unknown|not permitted|unexpected"
    r"|only the default|extra inputs|cannot both",
    re.IGNORECASE,
)


class ContextFull(Exception):
    """The conversation is longer than the model can read; the text is the provider's code."""


def explain(
    error: BaseException, request: ModelRequest, server: Server, redactor: Redactor
) -> ModelError | ContextFull:
    """Return the error to raise for one that the transport or the server's answer raised."""
    sdk = importlib.import_module(server.sdk)
    if isinstance(error, sdk.APIStatusError):
        said = redactor.text(_said(error))
        if server.key:
            # A short key is not looked for everywhere, but here it may well stand.
            said = said.replace(server.key, REDACTED)
        return _explain_status(error, request, server, said)
    timed_out = isinstance(error, sdk.APITimeoutError)
    return _explain_connection(error, request, server.url, redactor, timed_out=timed_out)


def _explain_connection(
    error: BaseException, request: ModelRequest, url: str, redactor: Redactor, *, timed_out: bool
) -> ModelError:
    from aiohttp import ClientConnectorError

    # The SDK's aiohttp transport calls a refused connection a timeout, so the causes decide.
    chain = tuple(_causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLError):
            return ModelUnavailable(
                f"the certificate of {url} was not accepted: {cause.reason or cause}",
                model=request.model,
            )
    for cause in chain:
        if isinstance(cause, ClientConnectorError):
            return ModelUnavailable(
                f"nothing answers at {url}: {reason_of(cause.os_error)}; start the server, or "
                "correct the address",
                model=request.model,
                retryable=True,
                unbilled=True,
            )
    if timed_out and any(isinstance(cause, TimeoutError) for cause in chain):
        return ModelTimeout(
            f"the model {request.model!r} at {url} did not answer in time; raise "
            "retries.attempt_timeout to allow it more",
            model=request.model,
            retryable=True,
        )
    last = chain[-1]
    return ModelUnavailable(
        f"the connection to {url} broke before the answer was complete: "
        f"{redactor.text(str(last)) or type(last).__name__}",
        model=request.model,
        retryable=True,
    )


# Any: the status error of either SDK; both are made by the same generator.
def _explain_status(
    error: Any, request: ModelRequest, server: Server, said: str
) -> ModelError | ContextFull:
    status: int = error.status_code
    code = str(getattr(error, "code", None) or error.type or "")
    model, url = request.model, server.url
    # Any: keyword arguments that all these classes share.
    facts: dict[str, Any] = {
        "model": model,
        "provider_status": status,
        "request_id": error.request_id,
        # A refusal of what was asked costs nothing; 408 may come after the model had begun.
        "unbilled": status < 500 and status != 408,
    }
    gone = "model" in said.lower() and _GONE.search(said.lower())
    match status:
        case 401 | 403:
            return ModelAuthError(
                f"{url} refused the key ({status}): {said}; {_key_fix(server)}", **facts
            )
        case 404 | 410:
            return ModelNotFound(
                f"{url} knows no model {model!r} ({status}): {said}; choose another model, or "
                "check that the address ends as the server wants it (OpenAI-compatible ones end in "
                "/v1)",
                **facts,
            )
        case 429:
            wait = retry_after(error.response.headers)
            spent = code == "insufficient_quota"
            text = "its quota is used up" if spent else "too many requests"
            return ModelRateLimited(
                f"{url} refused the call of {model!r} (429), {text}: {said}",
                **facts,
                retryable=not spent,
                retry_after=wait,
            )
        case 400 | 413 | 422 if _CONTEXT.search(f"{code} {said}"):
            return ContextFull(code or "context_length_exceeded")
        case 400 | 422 if (name := _refused_parameter(error, request, said)) is not None:
            return UnsupportedParameter(
                f"the model {model!r} refuses {name!r}: {said}; leave it out, or set "
                '"drop_unsupported": true to have it left out with a warning',
                **facts,
                parameter=name,
            )
        case 400 | 422 if gone:
            return ModelNotFound(f"{url} has no model {model!r} ({status}): {said}", **facts)
        case _:
            retryable = status in (408, 409) or status >= 500
            return ModelError(
                f"the call of {model!r} at {url} failed ({status}): {said}",
                **facts,
                retryable=retryable,
            )


def _refused_parameter(error: Any, request: ModelRequest, said: str) -> str | None:
    """Return which parameter that was sent the server refuses, if its answer is about one."""
    code = str(getattr(error, "code", None) or "")
    if code not in ("unsupported_parameter", "unsupported_value") and not _REFUSED.search(said):
        return None
    sent = (*request.parameters, "max_completion_tokens")
    param = getattr(error, "param", None)
    if isinstance(param, str) and param in sent:
        return param
    named = [name for name in sent if re.search(rf"\b{re.escape(name)}\b", said)]
    # "Use max_completion_tokens instead of max_tokens" names both; only one was sent.
    return named[0] if named else None


def _said(error: Any) -> str:
    """Return the provider's own words, on one line."""
    body: Any = error.body
    match body:
        case {"error": {"message": str() as text}}:
            pass
        case {"message": str() as text} | {"error": str() as text} | {"detail": str() as text}:
            pass
        case str() as text:
            pass
        case _:
            text = error.message
    text = " ".join(text.split())
    return text if len(text) <= 1000 else f"{text[:997]}..."


def _key_fix(server: Server) -> str:
    if server.key is None:
        return 'no key was sent; name the variable that holds it with "api_key_env"'
    return f"set a valid key: export {server.variable}=..."


def retry_after(headers: Any) -> float | None:
    """Return how many seconds a server asks to wait, where it says so."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
    except ValueError:
        pass  # not a number: the standard header below may still be one
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass  # the header may hold a date instead
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
