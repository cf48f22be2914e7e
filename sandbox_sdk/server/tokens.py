"""The token endpoint over HTTP: forms in, and the answers of RFC 6749 out.

It says no in that standard's words, as any OAuth client reads them, not as our other routes do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import anyio
from aiohttp import web

from sandbox_sdk.auth.exchange import SESSION_GRANT
from sandbox_sdk.auth.forms import LONGEST
from sandbox_sdk.server.calls import BODY_SECONDS
from sandbox_sdk.server.principals import Authenticator

_LONGEST_FORM = 4 * LONGEST
_MOST_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"


async def answer_token(request: web.Request, authenticator: Authenticator | None) -> web.Response:
    """Answer a request at the token endpoint.

    Args:
        request: It.
        authenticator: Gives out tokens; ``None`` is nobody.
    """
    if authenticator is None:
        return _refusal("this server gives out no tokens: its operator made no keys")
    if request.content_type != _FORM or "Content-Encoding" in request.headers:
        return _refusal(f"the body must be {_FORM}, without Content-Encoding", status=415)
    body = bytearray()
    with anyio.move_on_after(BODY_SECONDS) as patience:
        async for data in request.content.iter_any():
            body += data
            if len(body) > _LONGEST_FORM:
                return _refusal(f"the form is longer than {_LONGEST_FORM} bytes", status=413)
    if patience.cancelled_caught:
        return _refusal(f"the form took more than {BODY_SECONDS:g} s to come", status=408)
    try:
        form = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        return _refusal("the body is no form of UTF-8 text, or has too many fields")
    answer = await authenticator.token(
        form, authorization=request.headers.get("Authorization"), peer=origin(request)
    )
    return _response(answer.status, answer.body, answer.headers)


def origin(request: web.Request) -> str:
    """Return where a request came from, for slowing down who guesses."""
    return request.remote or "unix"


def _refusal(why: str, *, status: int = 400) -> web.Response:
    return _response(status, {"error": "invalid_request", "error_description": why}, {})


def _response(status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(dict(body)).encode(),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )


def _text(name: str) -> tuple[str, dict[str, str]]:
    return name, {"type": "string"}


# Any: a part of the OpenAPI document.
TOKEN_OPERATION: dict[str, Any] = {
    "operationId": "token",
    "summary": "Give an access token for credentials, by RFC 6749.",
    "security": [{"basic": []}, {"bearer": []}, {}],
    "requestBody": {
        "required": True,
        "content": {
            _FORM: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {
                            "enum": ["client_credentials", "refresh_token", SESSION_GRANT]
                        },
                        **dict(
                            map(
                                _text,
                                ("scope", "client_id", "client_secret", "api_key", "refresh_token"),
                            )
                        ),
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "Done.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["access_token", "token_type", "expires_in", "scope"],
                        "properties": {
                            **dict(map(_text, ("access_token", "token_type", "scope"))),
                            "expires_in": {"type": "integer"},
                            **dict(map(_text, ("refresh_token", "session_id"))),
                        },
                    }
                }
            },
        },
        "default": {
            "description": "What went wrong, in the words of RFC 6749.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["error"],
                        "properties": dict(map(_text, ("error", "error_description"))),
                    }
                }
            },
        },
    },
}
"""The endpoint in the OpenAPI document."""
