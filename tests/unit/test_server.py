"""The control plane of a server: who may do what, and what is told of what may not be."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from served import EVERYTHING, Keys, serving, serving_tcp

from sandbox_sdk import errors
from sandbox_sdk.auth.client import Auth
from sandbox_sdk.auth.exchange import TOKEN_PATH
from sandbox_sdk.backends.http import Connection, HttpBackend
from sandbox_sdk.backends.protocol import PROBLEM_TYPE, VERSION_HEADER
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import AuthenticationError, SandboxError
from sandbox_sdk.server import channel
from sandbox_sdk.server.app import Server
from sandbox_sdk.server.calls import READ
from sandbox_sdk.server.openapi import document
from sandbox_sdk.server.routes import ROUTES, Route
from sandbox_sdk.server.settings import Quota, ServerSettings
from sandbox_sdk.values import Mount, SandboxSpec, SandboxState
from sandbox_sdk.wire import ERRORS, to_json

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

OWNER = "0" * 64
SPEC = to_json(SandboxSpec(name="x", security_level="high", owners=(OWNER,)))
PLAIN = to_json(SandboxSpec(name="x"))
CANARY = "canary-4711"


class Caller:
    """Sends requests by hand."""

    def __init__(self, session: aiohttp.ClientSession, key: str = "one") -> None:
        self._session = session
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **what: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        every = {**self._headers, **(headers or {})}
        async with self._session.request(method, path, headers=every, **what) as response:
            text = await response.read()
            return response.status, json.loads(text) if text else None, response

    async def create(self, spec: dict[str, Any] = SPEC, key: str = "") -> tuple[int, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        status, told, _ = await self.send("POST", "/v1/sandboxes", json=spec, headers=headers)
        return status, told


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    async with serving_tcp(tmp_path / "state", Keys()) as opened:
        yield opened


@pytest.fixture
async def session(server: tuple[Server, str]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server[1]) as opened:
        yield opened


def backend(endpoint: str, key: str = "one") -> HttpBackend:
    return HttpBackend(Connection(endpoint, Auth({"token": key})))


def body_of(route: Route) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "create": SPEC,
        "pin": SPEC,
        "usage": {"ids": []},
        "collect": {"patterns": ["*"]},
    }
    return {} if route.body is None else {"json": bodies.get(route.name, {})}


def of_one() -> list[Route]:
    """Every operation of the document whose path names one thing by its id."""
    by_name = {route.name: route for route in ROUTES}
    return [
        by_name[operation["operationId"]]
        for path, operations in document()["paths"].items()
        for operation in operations.values()
        if "{id}" in path
    ]


async def test_another_tenants_sandbox_is_not_found_on_any_route(
    session: aiohttp.ClientSession,
) -> None:
    status, made = await Caller(session, "one").create()
    assert status == 201
    for key in ("two", "local"):
        other = Caller(session, key)
        for route in of_one():
            path = route.path.replace("{id}", made["id"])
            query = {"session": "0" * 32} if route.handler is channel.serve else {}
            upgrade = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
            }
            status, told, _ = await other.send(
                route.method,
                path,
                headers=upgrade if route.handler is channel.serve else {},
                params=query,
                **body_of(route),
            )
            code = "credential_not_found" if "sessions" in route.path else "not_found"
            assert (status, told["code"]) == (404, code), route
        status, told, _ = await other.send("GET", "/v1/sandboxes")
        assert told["sandboxes"] == []
    status, told, _ = await Caller(session, "one").send("GET", f"/v1/sandboxes/{made['id']}")
    assert (status, told["state"]) == (200, "created")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
async def test_no_route_answers_a_stranger(session: aiohttp.ClientSession, route: Route) -> None:
    path = route.path.replace("{id}", "sb_00000000000000000000000000")
    for key in ("", "nobody"):
        status, told, response = await Caller(session, key).send(
            route.method, path, **body_of(route)
        )
        assert (status, told["code"]) == (401, "authentication")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    if route.scope not in ("", READ):
        status, told, _ = await Caller(session, "one-reader").send(
            route.method, path, **body_of(route)
        )
        assert (status, told["code"]) == (403, "not_permitted")


async def test_the_document_has_every_route_and_no_other(server: tuple[Server, str]) -> None:
    routes = {(route.method, route.path) for route in ROUTES}
    documented = {
        (method.upper(), path) for path, item in document()["paths"].items() for method in item
    }
    served = {
        (route.method, route.resource.canonical if route.resource else "")
        for route in server[0].app.router.routes()
    }
    routes.add(("POST", TOKEN_PATH))
    assert documented == routes
    assert served - {("HEAD", path) for _, path in routes} == routes | {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/v1/openapi.json"),
    }


async def test_answers_are_as_documented(session: aiohttp.ClientSession) -> None:
    """Every field that comes is in the schema, and every one that it requires comes."""
    caller = Caller(session)
    _, made = await caller.create()
    _, told, _ = await caller.send("GET", "/v1/openapi.json")
    assert told == json.loads(json.dumps(document()))
    path = f"/v1/sandboxes/{made['id']}"
    answers = {
        ("/v1/sandboxes", "post", "201"): made,
        ("/v1/sandboxes", "get", "200"): (await caller.send("GET", "/v1/sandboxes"))[1],
        ("/v1/sandboxes/{id}", "get", "200"): (await caller.send("GET", path))[1],
        ("/v1/sandboxes/{id}/ended", "get", "200"): (await caller.send("GET", f"{path}/ended"))[1],
        ("/v1/whoami", "get", "200"): (await caller.send("GET", "/v1/whoami"))[1],
        ("/v1/sessions", "get", "200"): (await caller.send("GET", "/v1/sessions"))[1],
    }
    schemas = document()["components"]["schemas"]
    for (path, method, status_text), answer in answers.items():
        content = document()["paths"][path][method]["responses"][status_text]["content"]
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert answer.keys() == schemas[name]["properties"].keys(), path


async def test_a_request_of_one_key_takes_effect_once(session: aiohttp.ClientSession) -> None:
    one, two = Caller(session, "one"), Caller(session, "two")
    first = await one.create(key="k1")
    assert first[0] == 201
    assert await one.create(key="k1") == first
    assert (await one.create({**SPEC, "name": "y"}, key="k1"))[1]["code"] == "idempotency_mismatch"
    assert (await one.create({**SPEC, "name": "y"}, key="k1"))[0] == 422
    # Others' keys are others': a tenant's, and within it a caller's.
    assert (await two.create(key="k1"))[1]["id"] != first[1]["id"]
    assert (await Caller(session, "one-second").create(key="k1"))[1]["id"] != first[1]["id"]
    assert (await one.create())[1]["id"] != (await one.create())[1]["id"]
    assert (await one.create(key="not a key"))[0] == 400
    # What it made may be gone; the answer stays.
    await one.send("DELETE", f"/v1/sandboxes/{first[1]['id']}")
    assert await one.create(key="k1") == first


async def test_a_key_is_known_after_a_restart_and_no_secret_is_kept_with_it(tmp_path: Path) -> None:
    spec = {**PLAIN, "env": {"TOKEN": CANARY}}
    answers: list[Any] = []
    for _ in range(2):
        async with (
            serving_tcp(tmp_path / "state", Keys()) as (_, endpoint),
            aiohttp.ClientSession(endpoint) as session,
        ):
            caller = Caller(session, "local")
            answers.append(await caller.create(spec, key="k1"))
            await caller.send("DELETE", f"/v1/sandboxes/{answers[0][1]['id']}")
    assert answers[0] == answers[1]
    kept = (tmp_path / "state" / "state.db").read_bytes()
    assert b"k1" in kept
    assert CANARY.encode() not in kept


async def test_the_second_request_of_a_key_waits_for_the_first(
    server: tuple[Server, str], session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = await server[0]._tenants.of("one")
    reached, go = anyio.Event(), anyio.Event()
    create = tenant.create

    async def slowly(*args: Any) -> Any:
        reached.set()
        await go.wait()
        return await create(*args)

    monkeypatch.setattr(tenant, "create", slowly)
    made: list[Any] = []

    async def first() -> None:
        made.append(await Caller(session).create(key="k1"))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await reached.wait()
        status, told, response = await Caller(session).send(
            "POST", "/v1/sandboxes", json=SPEC, headers={"Idempotency-Key": "k1"}
        )
        assert (status, told["code"]) == (409, "idempotency_in_flight")
        assert response.headers["Retry-After"] == "1"
        go.set()
    monkeypatch.undo()
    assert await Caller(session).create(key="k1") == made[0]


async def test_the_client_sends_a_lost_request_again_with_its_key(
    server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of the first try is lost; one sandbox is made all the same."""
    tenant = await server[0]._tenants.of("one")
    create = tenant.create
    failures = [errors.ServerUnavailable("lost"), errors.ServerUnavailable("lost")]

    async def losing(*args: Any) -> Any:
        made = await create(*args)
        if failures:
            raise failures.pop()
        return made

    monkeypatch.setattr(tenant, "create", losing)
    far = backend(server[1])
    info = await far.create(SandboxSpec(name="x", security_level="high", owners=(OWNER,)))
    assert not failures
    assert [each.id for each in await far.list()] == [info.id]
    await far.aclose()


@pytest.mark.parametrize("asked", [3600.0, -1.0, float("inf")])
async def test_who_is_to_wait_for_long_is_told_so(
    server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch, asked: float
) -> None:
    tries: list[float] = []

    async def busy(*_: Any, **__: Any) -> None:
        tries.append(asked)
        raise errors.ServerUnavailable("later", retry_after=asked)

    far = backend(server[1])
    monkeypatch.setattr(far._connection, "_send", busy)
    with pytest.raises(errors.ServerUnavailable, match="later"):
        await far.list()
    assert tries == [asked]
    await far.aclose()


REFUSED = {
    "not sealed": ({"security_level": "high", "owners": []}, 400, "config"),
    "variables of a sealed one": ({"env": {"A": "x"}}, 400, "config"),
    "files of a sealed one": ({"files": {"a": ""}}, 400, "config"),
    "metadata of a sealed one": ({"metadata": {"a": "x"}}, 400, "config"),
    "no owner's key": ({"owners": ["x"]}, 400, "config"),
    "low": ({"security_level": "low"}, 403, "not_permitted"),
    "unsafe": ({"security_level": "unsafe"}, 403, "not_permitted"),
    "waiver": ({"security_level": "high", "waive": ["landlock"]}, 403, "not_permitted"),
    "host": ({"template": "host"}, 403, "not_permitted"),
    "path": (
        {"mounts": [to_json(Mount(source=Path("/etc"), target="/x"))]},
        400,
        "config",
    ),
    "maximum": ({"security_level": "maximum"}, 422, "isolation"),
    "faults": (
        {"name": "a\nb", "env": {"A=B": "x"}, "files": {"../x": ""}, "timeout": -1},
        400,
        "config",
    ),
    "resources": ({"resources": {"memory_bytes": -1, "pids": 10**12}}, 400, "config"),
    "unknown": ({"privileged": True}, 400, "config"),
    "many packages": ({"packages": ["?"] * 20_000}, 400, "config"),
    "many modules": ({"preload": ["?"] * 20_000}, 400, "config"),
}


@pytest.mark.parametrize(("change", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_a_server_does_not_offer_is_refused(
    tmp_path: Path, change: dict[str, Any], status: int, code: str
) -> None:
    async with (
        serving_tcp(tmp_path / "state", Keys(), ServerSettings()) as (_, endpoint),
        aiohttp.ClientSession(endpoint) as session,
    ):
        plain = {**SPEC, "security_level": "medium"}
        caller = Caller(session, "local")
        answered, told = await caller.create({**plain, **change})
        assert (answered, told["code"]) == (status, code)
        if {"packages", "preload"} & change.keys():
            assert len(told["faults"]) == 1
        if "name" in change:
            assert [line.split(":")[0] for line in told["faults"]] == [
                "name",
                "timeout",
                "env.'A=B'",
                "files.'../x'",
            ]
        answered, made = await caller.create(plain)
        assert made["spec"]["template"] == "python"
        assert made["spec"]["idle_timeout"] == 600.0
        assert len((await caller.send("GET", "/v1/sandboxes"))[1]["sandboxes"]) == 1


async def test_tenants_that_share_a_server_have_strong_levels(
    session: aiohttp.ClientSession,
) -> None:
    medium = {**SPEC, "security_level": "medium"}
    assert (await Caller(session, "local").create(medium))[0] == 201
    assert (await Caller(session, "one").create())[0] == 201
    for key in ("local", "one"):
        status, told = await Caller(session, key).create(medium)
        assert (status, told["code"], told["level"]) == (422, "isolation", "medium")


MALFORMED: dict[str, tuple[dict[str, Any], int]] = {
    "no JSON": ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400),
    "no UTF-8": ({"data": b"\xff", "headers": {"Content-Type": "application/json"}}, 400),
    "NaN": ({"data": b'{"name": NaN}', "headers": {"Content-Type": "application/json"}}, 400),
    "twice": (
        {"data": b'{"name": "a", "name": "b"}', "headers": {"Content-Type": "application/json"}},
        400,
    ),
    "deep": (
        {"data": b"[" * 10**5 + b"]" * 10**5, "headers": {"Content-Type": "application/json"}},
        400,
    ),
    "nested": ({"json": {"name": [[[[[]]]]] * 3}}, 400),
    "a list": ({"json": []}, 400),
    "nothing": ({"headers": {"Content-Type": "application/json"}}, 400),
    "a form": ({"data": {"name": "x"}}, 415),
    "packed": (
        {
            "data": b"x",
            "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        },
        415,
    ),
}


@pytest.mark.parametrize(("sent", "status"), MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_body_is_refused_as_a_problem(
    session: aiohttp.ClientSession, sent: dict[str, Any], status: int
) -> None:
    headers = {"Content-Type": "application/json", **sent.get("headers", {})}
    if "json" in sent or isinstance(sent.get("data"), dict):
        headers = {}
    answered, told, response = await Caller(session).send(
        "POST", "/v1/sandboxes", **{**sent, "headers": headers}
    )
    assert answered == status
    assert response.content_type == PROBLEM_TYPE
    assert told["code"] in ERRORS
    assert told["request_id"] == response.headers["X-Request-Id"]


async def test_a_body_has_a_most_of_parts(session: aiohttp.ClientSession) -> None:
    """Each takes the server twenty times the bytes that it came in."""
    body = io.BytesIO(b"[" + b"[]," * 1_000_000 + b"[]]")
    headers = {"Content-Type": "application/json"}
    status, told, _ = await Caller(session).send(
        "POST", "/v1/sandboxes", data=body, headers=headers
    )
    assert (status, told["code"]) == (400, "request_refused")
    assert "parts" in told["message"]


async def test_a_body_has_a_longest_length(session: aiohttp.ClientSession) -> None:
    status, told, _ = await Caller(session).send(
        "POST", "/v1/usage", json={"ids": ["x" * 100] * 1000}
    )
    assert (status, told["code"]) == (413, "request_refused")


async def test_unknown_routes_methods_and_origins_are_problems(
    server: tuple[Server, str], session: aiohttp.ClientSession
) -> None:
    caller = Caller(session)
    assert (await caller.send("GET", "/v2/sandboxes"))[:2][0] == 404
    status, told, response = await caller.send("PUT", "/v1/sandboxes", json={})
    assert (status, told["code"]) == (405, "request_refused")
    assert response.headers["Allow"] == "GET,POST"
    foreign = {"Origin": "https://elsewhere.example"}
    status, told, _ = await caller.send("GET", "/v1/whoami", headers=foreign)
    assert (status, told["code"]) == (403, "not_permitted")
    assert (await caller.send("GET", "/v1/whoami", headers={"Origin": server[1]}))[0] == 200
    status, told, _ = await caller.send("GET", "/v1/whoami", headers={VERSION_HEADER: "2"})
    assert (status, told["code"]) == (400, "version_mismatch")
    assert (await caller.send("GET", "/healthz"))[1] == {"status": "ok"}


async def test_records_come_a_page_at_a_time(session: aiohttp.ClientSession) -> None:
    caller = Caller(session)
    made = [(await caller.create({**SPEC, "name": str(number)}))[1]["id"] for number in range(5)]
    found: list[str] = []
    after: str | None = ""
    for _ in range(3):
        query = {"limit": "2", **({"after": after} if after else {})}
        _, page, _ = await caller.send("GET", "/v1/sandboxes", params=query)
        found += [each["id"] for each in page["sandboxes"]]
        after = page["next"]
    assert (found, after) == (made, None)
    for wrong in ({"after": "x"}, {"limit": "many"}, {"limit": "-1"}, {"limit": "nan"}):
        assert (await caller.send("GET", "/v1/sandboxes", params=wrong))[0] == 400


async def test_a_client_gets_the_errors_of_the_server_as_the_same_classes(
    server: tuple[Server, str],
) -> None:
    far = backend(server[1])
    unknown = "sb_00000000000000000000000000"
    for call in (far.get(unknown), far.start(unknown), far.stop(unknown), far.delete(unknown)):
        with pytest.raises(errors.SandboxNotFound):
            await call
    with pytest.raises(errors.ConfigError) as caught:
        await far.create(SandboxSpec(name="", security_level="high", owners=(OWNER,)))
    assert caught.value.faults[0].startswith("name: ")
    nobody = backend(server[1], "nobody")
    with pytest.raises(AuthenticationError):
        await nobody.whoami()
    await nobody.aclose()
    with pytest.raises(errors.TemplateError):
        await far.pin(
            SandboxSpec(
                name="x", security_level="high", owners=(OWNER,), template="none of that name"
            )
        )
    await far.aclose()


async def test_a_server_that_is_not_there_or_none_of_ours_is_told(tmp_path: Path) -> None:
    nobody = HttpBackend(Connection(f"unix://{tmp_path}/none.sock", Auth()))
    with pytest.raises(errors.ServerUnavailable, match=r"none\.sock"):
        await nobody.list()
    await nobody.aclose()

    async def stranger(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, stranger)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        other = backend(f"http://127.0.0.1:{port}")
        with pytest.raises(errors.VersionMismatch, match="does not say which version"):
            await other.list()
        await other.aclose()
        group.cancel_scope.cancel()


async def test_a_tenant_has_no_more_than_its_quota(tmp_path: Path) -> None:
    offered = ServerSettings(quota=Quota(sandboxes=2, running=1, connections=1), drain_seconds=0.5)
    async with serving(tmp_path / "state", offered) as (_, endpoint):
        far = HttpBackend(Connection(endpoint, Auth()))
        spec = SandboxSpec(name="x")
        one, two = await far.create(spec), await far.create(spec)
        with pytest.raises(errors.QuotaExceeded):
            await far.create(spec)
        await far.start(one.id)
        await far.start(one.id)  # it runs
        with pytest.raises(errors.QuotaExceeded):
            await far.start(two.id)
        async with far.connect(one.id):
            with pytest.raises(errors.QuotaExceeded):
                async with far.connect(one.id):
                    raise AssertionError("a second connection was let in")
        await far.stop(one.id)
        await far.start(two.id)
        await far.delete(one.id)
        await far.create(spec)
        await far.aclose()


async def test_at_once_a_tenant_makes_no_more_and_what_came_again_takes_no_room(
    tmp_path: Path,
) -> None:
    offered = ServerSettings(quota=Quota(sandboxes=2))
    async with (
        serving_tcp(tmp_path / "state", Keys(), offered) as (_, endpoint),
        aiohttp.ClientSession(endpoint) as session,
    ):
        caller = Caller(session)
        made: dict[str, tuple[int, Any]] = {}

        async def create(key: str) -> None:
            made[key] = await caller.create(key=key)

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(create, f"key-{number}")
        assert sorted(status for status, _ in made.values()) == [201] * 2 + [429] * 6
        for key, first in made.items():
            assert await caller.create(key=key) == first or first[0] == 429
        listed = (await caller.send("GET", "/v1/sandboxes"))[1]["sandboxes"]
        assert len(listed) == 2
        await caller.send("DELETE", f"/v1/sandboxes/{listed[0]['id']}")
        assert (await caller.create(key="another"))[0] == 201
        assert (await caller.create(key="one more"))[0] == 400
        assert (await caller.create(key="one-more"))[0] == 429


async def test_a_server_that_ends_starts_nothing_and_lets_calls_finish(tmp_path: Path) -> None:
    offered = ServerSettings(drain_seconds=20.0)
    outputs: list[str] = []
    async with anyio.create_task_group() as group:
        async with serving(tmp_path / "state", offered) as (server, endpoint):
            client = AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "client")
            sandbox = await client.create_sandbox("x")
            idle = await client.create_sandbox("y")
            await sandbox.setup()

            async def call() -> None:
                async with sandbox.start_command("echo begun; sleep 1; echo done") as process:
                    async for data in process.stdout:
                        outputs.append(data.decode())
                        begun.set()

            begun = anyio.Event()
            group.start_soon(call)
            await begun.wait()
            server.draining = True
            with pytest.raises(errors.ServerUnavailable, match="about to end"):
                await client.create_sandbox("z")
            with pytest.raises(errors.ServerUnavailable, match="about to end"):
                await idle.setup()
        assert "".join(outputs) == "begun\ndone\n"
        await client.aclose()


async def test_the_log_says_who_did_what_and_no_secret(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sandbox_sdk")
    caller = Caller(session, f"local-{CANARY}")
    _, made = await caller.create(
        {**PLAIN, "env": {"TOKEN": "in-env"}, "files": {"f": "aW4tZmlsZQ=="}}
    )
    await caller.send("GET", f"/v1/sandboxes/{made['id']}/file", params={"path": "in-query"})
    records = [vars(record) for record in caplog.records if record.message == "server.request"]
    assert [(each["route"], each["status"], each["tenant"]) for each in records] == [
        ("/v1/sandboxes", 201, "local"),
        ("/v1/sandboxes/{id}/file", 422, "local"),
    ]
    text = json.dumps([str(vars(record)) for record in caplog.records])
    for secret in ("Bearer", "in-env", "in-file", "aW4t", "in-query"):
        assert secret not in text, secret


async def test_every_error_has_a_status_that_is_no_failure_of_the_server_but_where_it_is() -> None:
    from sandbox_sdk.server.problems import status_of

    ours = {errors.StateError, errors.ProtocolError, SandboxError}
    for cls in (errors.ConfigError, errors.IsolationError, errors.SandboxBusy):
        assert 400 <= status_of(cls("x")) < 500
    assert {status_of(cls("x")) for cls in ours} == {500}
    limited = AuthenticationError("x", reason="rate_limited", retry_after=3)
    assert status_of(limited) == 429


async def test_a_sandbox_outlives_its_client_and_several_use_it_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path / "state", EVERYTHING) as (_, endpoint):
        async with AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "a") as one:
            assert (await one.validate_auth()).method == "peer"
            made = await one.create_sandbox("x")
            assert made.info.owner_pid is None
            await made.run_code("kept = 1", context="mine")
            async with AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "a") as two:
                same = await two.get_sandbox(made.id)
                assert same.info.state is SandboxState.RUNNING
                assert (await same.run_code("kept", context="mine")).error is not None
                await same.files.write("f", "of two")
                assert (await made.files.read_text("f")) == "of two"
                assert (await made.run_code("kept", context="mine")).text == "1"
        async with AsyncSandboxClient(endpoint=endpoint, state_dir=tmp_path / "a") as again:
            found = await again.get_sandbox(made.id)
            assert found.info.state is SandboxState.RUNNING
            assert (await found.run_command("cat f; pgrep -c python || true")).stdout.startswith(
                "of two"
            )
            await found.cleanup()
            assert (await again.get_sandbox(made.id)).info.state is SandboxState.STOPPED
