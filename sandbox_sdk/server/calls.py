"""One request of a known caller: its parts, read within bounds."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

import anyio
import attrs
from aiohttp import web
from anyio.to_thread import run_sync

from sandbox_sdk.auth.principal import Principal
from sandbox_sdk.errors import RequestRefused
from sandbox_sdk.server.principals import Authenticator
from sandbox_sdk.server.settings import ServerSettings
from sandbox_sdk.server.tenants import Tenant, Tenants
from sandbox_sdk.values import KIB
from sandbox_sdk.wire import from_json

T = TypeVar("T")

READ, WRITE = "sandboxes:read", "sandboxes:write"
"""The scopes that routes ask for."""

BODY_SECONDS = 60.0
"""Longest time that a client may take to send a body."""

IN_A_THREAD = 64 * KIB
"""Bytes of a body from which on it is read in a thread: nobody else's request waits for it."""

_DEEP = 50
# What each becomes takes twenty times its bytes. The largest spec has about a million: commas in
# its variables; what is long otherwise is base64, which has none.
_MOST_PARTS = 2_000_000


@attrs.frozen(kw_only=True)
class Call:
    """One request.

    Attributes:
        request: As it came.
        principal: Who sent it.
        authenticator: Knows callers by what they send; ``None`` where only the kernel does.
        tenant: Whose sandboxes it is about.
        tenants: All there are.
        offered: What the server offers.
        draining: Whether the server is about to end.
    """

    request: web.Request
    principal: Principal
    authenticator: Authenticator | None
    tenant: Tenant
    tenants: Tenants
    offered: ServerSettings
    draining: bool

    @property
    def id(self) -> str:
        """The sandbox that it names."""
        return self.request.match_info["id"]

    async def shared(self) -> bool:
        """Return whether there are several tenants: then levels must be strong."""
        if self.tenants.shared or self.authenticator is None:
            return self.tenants.shared
        return await self.authenticator.has_tenants()

    def query(self, name: str, default: str = "") -> str:
        """Return a parameter of the query."""
        return self.request.query.get(name, default)

    def number(self, name: str, default: float, *, most: float) -> float:
        """Return a number from 0 to ``most`` of the query.

        Raises:
            RequestRefused: It is none.
        """
        text = self.query(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number <= most:
            raise RequestRefused(f"{name}: must be a number from 0 to {most:g}, not {text[:60]!r}")
        return number

    async def read(self, *, most: int) -> bytes:
        """Return the body.

        Args:
            most: Its longest length in bytes.

        Raises:
            RequestRefused: It is no JSON by its header.
            HTTPException: It is too long or too slow.
        """
        if self.request.content_type != "application/json" or "Content-Encoding" in (
            self.request.headers
        ):
            raise web.HTTPUnsupportedMediaType(
                text="the body must be application/json, without Content-Encoding"
            )
        body = bytearray()
        with anyio.move_on_after(BODY_SECONDS):
            async for data in self.request.content.iter_any():
                body += data
                if len(body) > most:
                    raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=len(body))
            return bytes(body)
        raise web.HTTPRequestTimeout(text=f"the body took more than {BODY_SECONDS:g} s to come")

    async def value(self, cls: type[T], *, most: int = 64 * KIB) -> T:
        """Return what the body describes.

        Raises:
            RequestRefused: It is no JSON.
            ConfigError: It does not describe that; all faults at once.
        """
        return await parse(cls, await self.read(most=most))


async def parse(cls: type[T], body: bytes) -> T:
    """Return what a body describes.

    Raises:
        RequestRefused: It is no JSON.
        ConfigError: It does not describe that; all faults at once.
    """
    if len(body) > IN_A_THREAD:
        return await run_sync(_parse, cls, body)
    return _parse(cls, body)


def _parse(cls: type[T], body: bytes) -> T:
    if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_PARTS:
        raise RequestRefused(f"the body has more than {_MOST_PARTS} parts")
    try:
        data = _DECODER.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise RequestRefused(f"the body is no JSON: {str(error)[:200]}") from error
    _require_flat(data)
    return from_json(cls, data)


# Any: whatever JSON holds.
def _require_flat(data: Any) -> None:
    """Go on if it is nested no deeper than anything that is asked for."""
    level = [data]
    for _ in range(_DEEP):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise RequestRefused("the body is nested too deeply")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_unique)
