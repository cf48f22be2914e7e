"""A real authority over a real database, and a clock that a test can turn."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.auth.exchange import SESSION_GRANT
from sandbox_sdk.auth.grants import TokenAnswer
from sandbox_sdk.auth.records import NewKey

START = 1_900_000_000.25


@attrs.define
class Clock:
    """A clock that stands until it is turned."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@attrs.frozen(kw_only=True)
class Served:
    """A server's authority and what a test needs of it."""

    authority: Authority
    operator: NewKey
    clock: Clock
    state: Path

    async def token(self, *, authorization: str | None = None, **form: str) -> TokenAnswer:
        return await self.authority.token(list(form.items()), authorization=authorization)

    async def begin(self, key: str, **form: str) -> dict[str, Any]:
        """Begin a session and return the token endpoint's answer."""
        answer = await self.token(grant_type=SESSION_GRANT, api_key=key, **form)
        assert answer.status == 200, answer.body
        return dict(answer.body)

    async def refresh(self, refresh_token: str) -> TokenAnswer:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token)


@asynccontextmanager
async def served(state: Path) -> AsyncGenerator[Served]:
    """Make a state folder a server's, and open its authority."""
    operator = await Authority.init(state)
    clock = Clock()
    authority = await Authority.open(state, clock=clock)
    try:
        yield Served(authority=authority, operator=operator, clock=clock, state=state)
    finally:
        await authority.aclose()


def bearer(secret: object) -> str:
    return f"Bearer {secret}"
