"""Requests with an ``Idempotency-Key``: however often one comes, it takes effect once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs

from sandbox_sdk.backends.base import Standing
from sandbox_sdk.backends.protocol import KEY_HEADER
from sandbox_sdk.errors import RequestRefused
from sandbox_sdk.server.calls import Call
from sandbox_sdk.store.base import Once
from sandbox_sdk.values import SandboxInfo
from sandbox_sdk.wire import from_json, to_json

T = TypeVar("T")

_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def once_of(call: Call, body: bytes = b"") -> Once | None:
    """Return by what a request is known: others' keys, and those of other routes, are others.

    Raises:
        RequestRefused: Its key is none.
    """
    key = call.request.headers.get(KEY_HEADER)
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        raise RequestRefused(f"{KEY_HEADER}: must be 1 to 128 of A-Z, a-z, 0-9, _ . : and -")
    scope = f"{call.principal.subject}\n{call.request.method} {call.request.path}"
    return Once(scope=scope, key=key, digest=hashlib.sha256(body).digest())


async def standing_once(call: Call, do: Callable[[], Awaitable[Standing]]) -> Standing:
    """Return what a request that starts a sandbox made, the first time if it came again."""

    def kept(standing: Standing) -> object:
        return to_json(attrs.evolve(standing, info=_bare(standing.info)))

    made = await _once(call, b"", do, kept)
    if not isinstance(made, str):
        return made
    standing = from_json(Standing, json.loads(made), lenient=True)
    return attrs.evolve(standing, info=await _whole(call, standing.info))


async def info_once(
    call: Call, body: bytes, do: Callable[[], Awaitable[SandboxInfo]]
) -> SandboxInfo:
    """Return what a request that ends a sandbox made, the first time if it came again."""
    made = await _once(call, body, do, lambda info: to_json(_bare(info)))
    if not isinstance(made, str):
        return made
    return await _whole(call, from_json(SandboxInfo, json.loads(made), lenient=True))


async def _once(
    call: Call, body: bytes, do: Callable[[], Awaitable[T]], keep: Callable[[T], object]
) -> T | str:
    """Return what was made now, or as JSON what is kept of the first time."""
    once = once_of(call, body)
    if once is None:
        return await do()
    with call.tenant.alone(once):
        kept = await call.tenant.store.begin_once(once)
        if kept is not None:
            return kept
        made = await do()
        await call.tenant.store.end_once(once, json.dumps(keep(made)))
        return made


def _bare(info: SandboxInfo) -> SandboxInfo:
    """A record without what its user put into it: no secret is kept with an answer."""
    return attrs.evolve(info, spec=attrs.evolve(info.spec, env={}, files={}, metadata={}))


async def _whole(call: Call, info: SandboxInfo) -> SandboxInfo:
    """A record with what its user put into it, which never changes.

    Raises:
        SandboxNotFound: The sandbox was deleted since.
    """
    return attrs.evolve(info, spec=(await call.tenant.backend.get(info.id)).spec)
