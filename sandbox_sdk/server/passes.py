"""How long a connection that stays open may: until its credentials end, or are revoked."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal

import anyio

from sandbox_sdk.errors import AuthenticationError
from sandbox_sdk.server.calls import WRITE, Call
from sandbox_sdk.server.tokens import origin

ASKED_AT = 0.9
"""The part of what is left of credentials after which newer ones are asked for.

Clients renew theirs after a smaller part of their whole life, and so have newer ones by then.
"""

Over = Literal["expired", "revoked"]
"""Why a connection may not go on."""


class Pass:
    """What lets one connection go on.

    Args:
        call: The request that opened it.
    """

    def __init__(self, call: Call) -> None:
        self._principal = call.principal
        self._authenticator = call.authenticator
        self._origin = origin(call.request)
        self._changed = anyio.Event()

    async def over(self, ask: Callable[[], Awaitable[None]]) -> Over:
        """Return once it is no longer good, at most a second later.

        Args:
            ask: Asks the other side for newer credentials, for ``renew``.
        """
        why: list[Over] = []
        while not why:
            changed = self._changed
            async with anyio.create_task_group() as group:
                group.start_soon(self._live, ask, why, changed)
                group.start_soon(self._watch, why, changed)
                await changed.wait()
                group.cancel_scope.cancel()
        return why[0]

    async def renew(self, authorization: str) -> bool:
        """Take newer credentials of the same caller; return whether they are that.

        Args:
            authorization: As the header of this name.
        """
        if self._authenticator is None:
            return False
        try:
            fresh = await self._authenticator.authenticate(authorization, peer=self._origin)
        except AuthenticationError:
            return False
        before = self._principal
        same = (fresh.tenant, fresh.subject) == (before.tenant, before.subject)
        if not same or not fresh.may(WRITE):
            return False
        self._principal = fresh
        self._changed.set()
        self._changed = anyio.Event()
        return True

    async def _live(
        self, ask: Callable[[], Awaitable[None]], why: list[Over], over: anyio.Event
    ) -> None:
        ends = self._principal.expires_at
        if ends is None:
            return
        await anyio.sleep(max(0.0, (ends - time.time()) * ASKED_AT))
        with anyio.move_on_after(max(0.0, ends - time.time())):  # it may not read
            await ask()
        await anyio.sleep(max(0.0, ends - time.time()))
        why.append("expired")
        over.set()

    async def _watch(self, why: list[Over], over: anyio.Event) -> None:
        if self._authenticator is None or self._principal.credential is None:
            return  # the kernel's word is not taken back
        await self._authenticator.wait_revoked(self._principal)
        why.append("revoked")
        over.set()
