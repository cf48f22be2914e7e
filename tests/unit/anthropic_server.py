"""Answers and errors in Anthropic's form, for the scripted server on loopback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from openai_server import Handler


def says(text: str = "", *, calls: list[tuple[str, str]] | None = None, **more: Any) -> Handler:
    """Answer with a message; ``calls`` are tool names and inputs as JSON texts."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    content += [
        {"type": "tool_use", "id": f"toolu_{i}", "name": name, "input": json.loads(given)}
        for i, (name, given) in enumerate(calls or ())
    ]
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted-1",
        "content": content,
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        **more,
    }

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, headers={"request-id": "req_1"})

    return handler


def fails(
    status: int,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
    type: str = "invalid_request_error",
    **_: Any,
) -> Handler:
    """Answer with an error in Anthropic's form, which has no code and names no parameter."""

    async def handler(request: web.Request) -> web.StreamResponse:
        body = {"type": "error", "error": {"type": type, "message": message}}
        return web.json_response(body, status=status, headers=headers)

    return handler
