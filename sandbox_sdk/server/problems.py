"""Errors as ``application/problem+json`` (RFC 9457), with the codes of ``wire.ERRORS``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from sandbox_sdk import errors
from sandbox_sdk.backends.protocol import PROBLEM_TYPE, REQUEST_HEADER
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.wire import error_to_json

STATUS: Mapping[type[SandboxError], HTTPStatus] = {
    errors.ConfigError: HTTPStatus.BAD_REQUEST,
    errors.RequestRefused: HTTPStatus.BAD_REQUEST,
    errors.VersionMismatch: HTTPStatus.BAD_REQUEST,
    errors.AuthenticationError: HTTPStatus.UNAUTHORIZED,
    errors.NotPermitted: HTTPStatus.FORBIDDEN,
    errors.SandboxNotFound: HTTPStatus.NOT_FOUND,
    errors.CredentialNotFound: HTTPStatus.NOT_FOUND,
    errors.SandboxBusy: HTTPStatus.CONFLICT,
    errors.SandboxClosed: HTTPStatus.CONFLICT,
    errors.SandboxEnded: HTTPStatus.CONFLICT,
    errors.IdempotencyInFlight: HTTPStatus.CONFLICT,
    errors.IdempotencyMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.IsolationError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TemplateError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.KeyNotFound: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.QuotaExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ServerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.AdmissionTimeout: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.LaunchError: HTTPStatus.SERVICE_UNAVAILABLE,
    SandboxError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Class -> status; a class that is not named has that of its nearest parent."""


def status_of(error: SandboxError) -> HTTPStatus:
    """Return the status that an error is answered with."""
    if isinstance(error, errors.AuthenticationError) and error.reason == "rate_limited":
        return HTTPStatus.TOO_MANY_REQUESTS
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def problem(error: SandboxError, request_id: str, *, status: int | None = None) -> web.Response:
    """Return the answer that tells a client of an error.

    Args:
        error: What happened.
        request_id: Of the request.
        status: The status, where the error's class does not say it.
    """
    found = HTTPStatus(status or status_of(error))
    body = {
        "type": "about:blank",
        "title": found.phrase,
        "status": found.value,
        "detail": error.message,
        "request_id": request_id,
        **error_to_json(error),
    }
    headers = {REQUEST_HEADER: request_id}
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers["Retry-After"] = str(math.ceil(wait))
    if found is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(
        status=found.value,
        body=json.dumps(body).encode(),
        content_type=PROBLEM_TYPE,
        headers=headers,
    )
