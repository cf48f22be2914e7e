"""A real model server on loopback whose answers, and faults, a test scripts; here OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.define
class ScriptedServer:
    """Answers each call with the next handler; the last one stays."""

    url: str = ""
    handlers: list[Handler] = attrs.field(factory=list)
    bodies: list[dict[str, Any]] = attrs.field(factory=list)
    headers: list[Mapping[str, str]] = attrs.field(factory=list)

    def script(self, *handlers: Handler) -> None:
        """Set what is answered next."""
        self.handlers = list(handlers)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one call."""
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        handler = self.handlers.pop(0) if len(self.handlers) > 1 else self.handlers[0]
        return await handler(request)


@asynccontextmanager
async def scripted_server() -> AsyncGenerator[ScriptedServer]:
    """Serve on a free loopback port."""
    server = ScriptedServer()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_post("/v1/messages", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}/v1"
        yield server
    finally:
        await runner.cleanup()


def says(text: str = "", *, calls: list[tuple[str, str]] | None = None, **more: Any) -> Handler:
    """Answer with a completion; ``calls`` are tool names and argument texts."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    body = {
        "id": "chatcmpl-1",
        "model": "scripted-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **more}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, headers={"x-request-id": "req_1"})

    return handler


def fails(
    status: int, message: str, *, headers: Mapping[str, str] | None = None, **error: Any
) -> Handler:
    """Answer with an error in OpenAI's form."""

    async def handler(request: web.Request) -> web.StreamResponse:
        body = {"error": {"message": message, "type": "invalid_request_error", **error}}
        return web.json_response(body, status=status, headers=headers)

    return handler


def sends(data: bytes) -> Handler:
    """Answer 200 with any bytes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, content_type="application/json")

    return handler


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """Send half an answer and cut the connection."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


def drips(released: Callable[[], Awaitable[None]]) -> Handler:
    """Send one byte, then nothing until told."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await released()
        return response

    return handler
