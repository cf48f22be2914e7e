"""The data plane: one WebSocket of one client to the agent of one sandbox."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any, cast

import anyio
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from sandbox_sdk.backends.protocol import (
    ACK_BYTES,
    ACK_FRAMES,
    CLOSE_ENDED,
    CLOSE_EXPIRED,
    CLOSE_LOST,
    CLOSE_REPLACED,
    LONGEST_FRAME,
)
from sandbox_sdk.errors import ProtocolError, RequestRefused
from sandbox_sdk.server.calls import Call
from sandbox_sdk.server.hub import Hub
from sandbox_sdk.server.line import Line
from sandbox_sdk.server.passes import Over, Pass
from sandbox_sdk.wire import to_json

HEARTBEAT_SECONDS = 20.0
"""How often a silent client is asked whether it is there."""

_TOKEN = re.compile(r"[0-9a-f]{32}")
_CLOSE_SECONDS = 1.0


async def serve(call: Call) -> web.StreamResponse:
    """Carry frames both ways until either side has enough.

    Raises:
        RequestRefused: The query is not as agreed on.
        SandboxClosed: The sandbox does not run.
    """
    token, received = call.query("session"), int(call.number("received", 0, most=2**53))
    if not _TOKEN.fullmatch(token):
        raise RequestRefused("session: must be 32 hexadecimal digits")
    await call.tenant.backend.get(call.id)
    hub = call.tenant.hub(call.id)
    owner = f"{call.principal.tenant}\n{call.principal.subject}"
    hub.check(token, owner, most=call.tenant.quota.connections)
    socket = web.WebSocketResponse(
        compress=False,
        heartbeat=HEARTBEAT_SECONDS,
        max_msg_size=LONGEST_FRAME,
        timeout=_CLOSE_SECONDS,
    )
    if not socket.can_prepare(call.request):
        raise RequestRefused("this is a WebSocket: ask for it by an upgrade")
    line = hub.attach(token, owner)
    await socket.prepare(call.request)
    await _Connection(call, hub, line, socket, received).serve()
    return socket


class _Connection:
    """One WebSocket that serves a line, until it is lost or another one does."""

    def __init__(
        self, call: Call, hub: Hub, line: Line, socket: web.WebSocketResponse, received: int
    ) -> None:
        self._call = call
        self._hub = hub
        self._line = line
        self._socket = socket
        self._sent = received
        self._turn = line.take_turn()
        self._since_ack = [0, 0]  # frames, bytes
        self._pass = Pass(call)
        self._over: Over | None = None

    async def serve(self) -> None:
        line, hub = self._line, self._hub
        try:
            await hub.acknowledge(line, self._sent)
        except ValueError:  # it has what this server never sent: of a session that is gone
            await hub.detach(line)
            await self._socket.close(code=CLOSE_LOST)
            return
        except ConnectionError:
            await self._socket.close(code=CLOSE_ENDED)
            return
        try:
            await self._say({"received": line.received, "resumed": self._turn > 1})
            async with anyio.create_task_group() as group:
                group.start_soon(self._send)
                group.start_soon(self._guard, group.cancel_scope)
                await self._receive()
                group.cancel_scope.cancel()
            if self._over is not None:
                await self._refuse()
        except (ConnectionError, ExceptionGroup) as error:
            if isinstance(error, ExceptionGroup) and error.split(ConnectionError)[1] is not None:
                raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave()

    async def _guard(self, scope: anyio.CancelScope) -> None:
        """End the connection once its credentials are no longer good."""
        self._over = await self._pass.over(partial(self._say, {"renew": True}))
        scope.cancel()

    async def _refuse(self) -> None:
        """Hang up on a client whose credentials are no longer good, even if it does not read."""
        if self._over == "revoked":  # what ran for it ends with that, not when it hangs up too
            await self._hub.detach(self._line)
        with anyio.move_on_after(_CLOSE_SECONDS) as patience:
            await self._socket.close(code=CLOSE_EXPIRED)
        transport = self._call.request.transport
        if patience.cancelled_caught and transport is not None:
            transport.abort()

    async def _leave(self) -> None:
        """Let the line wait for its client, unless the client took its leave or has come again."""
        if self._line.turn != self._turn:
            return
        if self._socket.close_code == WSCloseCode.OK:
            await self._hub.detach(self._line)
        else:
            await self._hub.left(self._line)

    async def _send(self) -> None:
        """Send what the agent says, in order."""
        line = self._line
        while line.turn == self._turn and not (line.over and not line.after(self._sent)):
            changed = line.changed
            for frame in line.after(self._sent):
                await self._socket.send_bytes(frame)
                self._sent += 1
                if line.turn != self._turn:
                    break
            else:
                if not line.over:
                    await changed.wait()
        replaced = line.turn != self._turn
        await self._socket.close(code=CLOSE_REPLACED if replaced else CLOSE_ENDED)

    async def _receive(self) -> None:
        """Pass on what the client says, in order, until it hangs up."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if self._line.turn != self._turn:
                    return
                try:
                    await self._pass_on(message.data)
                except ProtocolError:  # a sealed channel takes whole frames only
                    await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)
                    return
            elif message.type is WSMsgType.TEXT:
                if not await self._hear(message):
                    await self._socket.close(code=WSCloseCode.POLICY_VIOLATION)
                    return
            else:
                return

    async def _pass_on(self, frame: bytes) -> None:
        self._line.received += 1
        await self._hub.forward(self._line, frame)
        self._since_ack[0] += 1
        self._since_ack[1] += len(frame)
        if self._since_ack[0] >= ACK_FRAMES or self._since_ack[1] >= ACK_BYTES:
            self._since_ack = [0, 0]
            await self._say({"ack": self._line.received})

    async def _hear(self, message: WSMessage) -> bool:
        """Take a message for the server itself; return whether it makes sense."""
        try:
            said = json.loads(message.data)
        except (ValueError, RecursionError):
            return False
        match said:
            case {"ack": int() as count} if count <= self._sent:
                try:
                    await self._hub.acknowledge(self._line, count)
                except ValueError:
                    return False
            case {"renew": str() as authorization}:
                return await self._pass.renew(authorization)
            case {"ask": int() as number}:
                hits = await self._call.tenant.backend.limit_hits(self._hub.id)
                await self._say({"answer": number, "limit_hits": to_json(hits)})
            case _:
                return False
        return True

    async def _say(self, what: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps(cast("dict[str, object]", what)))
