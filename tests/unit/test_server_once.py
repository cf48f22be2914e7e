"""Requests that change what is there take effect once for each key, whatever is in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from served import EVERYTHING, Keys, serving_tcp

from sandbox_sdk.errors import ServerUnavailable
from sandbox_sdk.server.app import Server
from sandbox_sdk.server.routes import ROUTES
from sandbox_sdk.values import SandboxSpec
from sandbox_sdk.wire import to_json

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CANARY = "canary-4711"
SPEC = to_json(SandboxSpec(name="x", template="host", env={"TOKEN": CANARY}))


class Caller:
    def __init__(self, session: aiohttp.ClientSession, key: str = "local") -> None:
        self._session = session
        self._key = key

    async def post(self, path: str, *, once: str = "", json: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._key}"}
        headers |= {"Idempotency-Key": once} if once else {}
        async with self._session.post(path, headers=headers, json=json) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, Caller, Caller]]:
    async with (
        serving_tcp(tmp_path / "state", Keys(), EVERYTHING) as (server, endpoint),
        aiohttp.ClientSession(endpoint) as session,
    ):
        yield server, Caller(session), Caller(session, "local-second")


async def test_what_starts_and_ends_a_sandbox_takes_effect_once(
    server: tuple[Server, Caller, Caller],
) -> None:
    _, caller, other = server
    _, made = await caller.post("/v1/sandboxes", json=SPEC)
    path = f"/v1/sandboxes/{made['id']}"
    started = await caller.post(f"{path}/start", once="a")
    assert started[0] == 200
    stopped = await caller.post(f"{path}/stop", once="a", json={})
    assert (stopped[0], stopped[1]["state"]) == (200, "stopped")
    # The first request comes once more, late: nothing is started, and it is answered as it was.
    assert await caller.post(f"{path}/start", once="a") == started
    assert started[1]["info"]["spec"]["env"] == {"TOKEN": CANARY}
    assert (await caller.post(f"{path}/stop", json={}))[1]["state"] == "stopped"
    # Another key, or the same of another caller, is another request.
    again = await other.post(f"{path}/start", once="a")
    assert again[1]["info"]["started_at"] > started[1]["info"]["started_at"]
    assert await caller.post(f"{path}/stop", once="a", json={}) == stopped
    assert (await caller.post(f"{path}/start"))[1]["info"]["started_at"] == (
        again[1]["info"]["started_at"]
    )
    why = {"why": {"kind": "cancelled"}}
    status, told = await caller.post(f"{path}/stop", once="a", json=why)
    assert (status, told["code"]) == (422, "idempotency_mismatch")


async def test_no_secret_is_kept_with_an_answer(
    server: tuple[Server, Caller, Caller],
) -> None:
    tenant = await server[0]._tenants.of("local")
    kept: list[str] = []
    end = tenant.store.end_once

    async def keep(once: Any, answer: str) -> None:
        kept.append(answer)
        await end(once, answer)

    tenant.store.end_once = keep  # type: ignore[method-assign]
    _, made = await server[1].post("/v1/sandboxes", json=SPEC)
    path = f"/v1/sandboxes/{made['id']}"
    await server[1].post(f"{path}/start", once="a")
    await server[1].post(f"{path}/stop", once="b", json={})
    assert len(kept) == 2
    assert CANARY not in "".join(kept)


async def test_while_the_first_runs_the_second_is_told_to_wait(
    server: tuple[Server, Caller, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await server[0]._tenants.of("local")
    reached, go = anyio.Event(), anyio.Event()
    start = tenant.start

    async def slowly(id: str) -> Any:
        reached.set()
        await go.wait()
        return await start(id)

    monkeypatch.setattr(tenant, "start", slowly)
    caller = server[1]
    _, made = await caller.post("/v1/sandboxes", json=SPEC)
    path = f"/v1/sandboxes/{made['id']}/start"
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: caller.post(path, once="k"))
        await reached.wait()
        status, told = await caller.post(path, once="k")
        assert (status, told["code"]) == (409, "idempotency_in_flight")
        go.set()
    assert (await caller.post(path, once="k"))[0] == 200


async def test_a_request_that_was_never_answered_is_done_again(
    server: tuple[Server, Caller, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its server was killed between the effect and the answer."""
    tenant = await server[0]._tenants.of("local")

    async def lost(once: Any, answer: str) -> None:
        raise ServerUnavailable("killed")

    caller = server[1]
    _, made = await caller.post("/v1/sandboxes", json=SPEC)
    path = f"/v1/sandboxes/{made['id']}/start"
    with monkeypatch.context() as patch:
        patch.setattr(tenant.store, "end_once", lost)
        assert (await caller.post(path, once="k"))[0] == 503
    first = await caller.post(path, once="k")
    assert (first[0], first[1]["info"]["state"]) == (200, "running")
    assert await caller.post(path, once="k") == first


def test_every_route_with_an_effect_takes_a_key() -> None:
    """The others of these only look: the body says what at."""
    looks = {"pin", "usage", "collect"}
    posts = {route.name: route.has_effect for route in ROUTES if route.method == "POST"}
    assert {name for name, has_effect in posts.items() if not has_effect} == looks
