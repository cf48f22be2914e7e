"""A server of nothing but aiohttp, which ours are measured beside: an answer, and a stream.

python benchmarks/bench/bare_server.py SOCKET
"""

from __future__ import annotations

import json
import sys

from aiohttp import web

ANSWER = {"id": "sb_00000000000000000000000000", "state": "created", "created_at": 0.0}
CHUNK = bytes(64 * 1024)


async def answer(request: web.Request) -> web.Response:
    """Answer with a small object."""
    return web.Response(text=json.dumps(ANSWER), content_type="application/json")


async def stream(request: web.Request) -> web.WebSocketResponse:
    """Send as many bytes as are asked for, 64 KiB a message."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    for _ in range(int(request.query["bytes"]) // len(CHUNK)):
        await socket.send_bytes(CHUNK)
    await socket.close()
    return socket


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/answer", answer)
    app.router.add_get("/stream", stream)
    web.run_app(app, path=sys.argv[1], access_log=None, print=lambda _: print("ready", flush=True))
