"""A server that knows callers by real credentials: all forms, at TCP and at a Unix socket."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import attrs
import pytest
from authorities import Clock, bearer
from served import EVERYTHING, serving, serving_tcp

from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.auth.client import Auth
from sandbox_sdk.auth.exchange import SESSION_GRANT, TOKEN_PATH
from sandbox_sdk.auth.limiter import BURST
from sandbox_sdk.auth.records import NewClient, NewKey
from sandbox_sdk.auth.secret_texts import Kind, new_secret
from sandbox_sdk.backends.http import Connection, HttpBackend
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import AuthenticationError, CredentialNotFound, SandboxNotFound
from sandbox_sdk.values import SandboxSpec
from sandbox_sdk.wire import to_json

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

SPEC = to_json(SandboxSpec(name="x", security_level="high"))


@attrs.frozen(kw_only=True)
class Known:
    """A server at loopback, and what its callers were given."""

    authority: Authority
    clock: Clock
    state: Path
    endpoint: str
    session: aiohttp.ClientSession
    key: NewKey
    client: NewClient

    async def send(
        self, method: str, path: str, *, key: str = "", **what: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        headers = {"Authorization": bearer(key)} if key else {}
        headers |= what.pop("headers", {})
        async with self.session.request(method, path, headers=headers, **what) as response:
            text = await response.read()
            return response.status, json.loads(text) if text else None, response

    async def token(self, **form: str) -> tuple[int, Any, aiohttp.ClientResponse]:
        return await self.send("POST", TOKEN_PATH, data=form)

    def backend(self, auth: Auth) -> HttpBackend:
        return HttpBackend(Connection(self.endpoint, auth))


@pytest.fixture
async def known(tmp_path: Path) -> AsyncIterator[Known]:
    state = tmp_path / "server"
    await Authority.init(state)
    clock = Clock()
    authority = await Authority.open(state, clock=clock)
    await authority.admin.create_tenant("team")
    key = await authority.admin.create_key("team", "ann")
    client = await authority.admin.create_client("team", "batch", grants=("reader",))
    async with (
        serving_tcp(state, authority) as (_, endpoint),
        aiohttp.ClientSession(endpoint, connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Known(
            authority=authority,
            clock=clock,
            state=state,
            endpoint=endpoint,
            session=session,
            key=key,
            client=client,
        )
    await authority.aclose()


async def test_every_form_of_credentials_is_known_and_told(known: Known, tmp_path: Path) -> None:
    client = {"client_id": known.client.info.id, "client_secret": known.client.secret}
    status, given, _ = await known.token(grant_type="client_credentials", **client)
    assert status == 200
    file = str(tmp_path / "session")
    beginning = Connection(known.endpoint, begin := Auth({"api_key": known.key.secret}))
    await begin.begin_session(Path(file))
    await beginning.aclose()
    forms: dict[str, dict[str, object]] = {
        "token": {"token": given["access_token"]},
        "api_key": {"api_key": known.key.secret},
        "client": dict(client),
        "session": {"session": file},
    }
    for method, form in forms.items():
        folder = tmp_path / "client"
        async with AsyncSandboxClient(form, endpoint=known.endpoint, state_dir=folder) as caller:
            told = await caller.validate_auth()
        ann = method in ("api_key", "session")
        assert (told.authenticated, told.method) == (True, method)
        assert told.subject == ("ann" if ann else "batch")
        assert ("sandboxes:write" in told.scopes) == ann
        assert (told.expires_at is None) == (method == "api_key")
        assert told.detail.startswith(f"tenant team at {known.endpoint}, authenticated by")
    every = {name: value for form in forms.values() for name, value in form.items()}
    async with AsyncSandboxClient(every, endpoint=known.endpoint, state_dir=tmp_path) as caller:
        told = await caller.validate_auth()
    assert told.method == "token"
    assert "; not used: the API key, client_id" in told.detail


async def test_credentials_win_over_the_kernels_word_at_a_unix_socket(tmp_path: Path) -> None:
    operator = await Authority.init(tmp_path / "server")
    authority = await Authority.open(tmp_path / "server")
    await authority.admin.create_tenant("team")
    key = await authority.admin.create_key("team", "ann")

    async def who(endpoint: str, **form: object) -> tuple[str, str]:
        folder = tmp_path / "client"
        async with AsyncSandboxClient(form, endpoint=endpoint, state_dir=folder) as caller:
            told = await caller.validate_auth()
            return told.method, told.subject

    async with serving(tmp_path / "server", authenticator=authority) as (_, endpoint):
        assert await who(endpoint, api_key=key.secret) == ("api_key", "ann")
        assert await who(endpoint, api_key=operator.secret) == ("api_key", "operator")
        assert (await who(endpoint))[0] == "peer"
        # A wrong key makes nobody the server's owner.
        with pytest.raises(AuthenticationError, match="no such API key"):
            await who(endpoint, api_key=new_secret(Kind.API_KEY))
    await authority.aclose()
    async with serving(tmp_path / "plain") as (_, endpoint):
        with pytest.raises(AuthenticationError, match="server init"):
            await who(endpoint, api_key=key.secret)


async def test_the_token_endpoint_speaks_rfc_6749(known: Known) -> None:
    id_, secret = known.client.info.id, known.client.secret
    basic = base64.b64encode(f"{id_}:{secret}".encode()).decode()
    status, given, response = await known.send(
        "POST",
        TOKEN_PATH,
        data={"grant_type": "client_credentials"},
        headers={"Authorization": f"Basic {basic}"},
    )
    assert (status, given["token_type"], given["expires_in"]) == (200, "Bearer", 600)
    assert "refresh_token" not in given
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Pragma"] == "no-cache"
    assert response.content_type == "application/json"
    for form, said in (
        ({}, (400, "invalid_request")),
        ({"grant_type": "password"}, (400, "unsupported_grant_type")),
        (
            {"grant_type": "client_credentials", "client_id": id_, "client_secret": "x"},
            (401, "invalid_client"),
        ),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, (400, "invalid_grant")),
    ):
        status, told, response = await known.token(**form)
        assert (status, told["error"]) == said
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
        assert response.headers["Cache-Control"] == "no-store"
    plain = {"Content-Type": "application/x-www-form-urlencoded"}
    for data, headers, status in (
        (b"grant_type=%ff", plain, 400),
        (b"grant_type=\xff", plain, 400),
        (b"&".join([b"a=b"] * 50), plain, 400),
        (b"a" * 20_000, plain, 413),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"x", {**plain, "Content-Encoding": "gzip"}, 415),
    ):
        answered, told, _ = await known.send("POST", TOKEN_PATH, data=data, headers=headers)
        assert (answered, told["error"]) == (status, "invalid_request"), data[:20]


async def test_sessions_are_begun_refreshed_listed_and_ended(known: Known) -> None:
    _, begun, _ = await known.token(grant_type=SESSION_GRANT, api_key=known.key.secret)
    other = await known.authority.admin.create_key("team", "bob")
    _, his, _ = await known.token(grant_type=SESSION_GRANT, api_key=other.secret)
    status, more, _ = await known.token(
        grant_type="refresh_token", refresh_token=begun["refresh_token"]
    )
    assert status == 200
    mine = f"/v1/sessions/{begun['session_id']}"
    _, listed, _ = await known.send("GET", "/v1/sessions", key=more["access_token"])
    assert [each["id"] for each in listed["sessions"]] == [begun["session_id"]]
    assert begun["refresh_token"] not in json.dumps(listed)
    # Bob sees his own, and ends no other; whoever may see all gets them a page at a time.
    for path in (mine, "/v1/sessions/ses_none", f"/v1/sessions/{known.key.info.id}"):
        status, told, _ = await known.send("DELETE", path, key=his["access_token"])
        assert (status, told["code"]) == (404, "credential_not_found")
    chief = (await known.authority.admin.create_key("team", "eve", grants=("admin",))).secret
    _, page, _ = await known.send("GET", "/v1/sessions", key=chief, params={"limit": "1"})
    assert len(page["sessions"]) == 1
    following = {"after": page["next"]}
    _, rest, _ = await known.send("GET", "/v1/sessions", key=chief, params=following)
    found = {each["id"] for each in (*page["sessions"], *rest["sessions"])}
    assert (found, rest["next"]) == ({begun["session_id"], his["session_id"]}, None)
    status, told, _ = await known.send("DELETE", mine, key=more["access_token"])
    assert (status, told) == (204, None)
    status, told, _ = await known.send("GET", "/v1/whoami", key=more["access_token"])
    assert (status, told["reason"]) == (401, "revoked")
    status, told, _ = await known.token(
        grant_type="refresh_token", refresh_token=more["refresh_token"]
    )
    assert (status, told["error"]) == (400, "invalid_grant")


async def test_only_failures_are_slowed_down(known: Known) -> None:
    wrong = new_secret(Kind.API_KEY)
    for _ in range(BURST):
        assert (await known.send("GET", "/v1/whoami", key=wrong))[0] == 401
    for _ in range(20):
        status, told, response = await known.send("GET", "/v1/whoami", key=wrong)
        assert (status, told["code"], told["reason"]) == (429, "authentication", "rate_limited")
        assert int(response.headers["Retry-After"]) >= 1
        assert (await known.send("GET", "/v1/whoami", key=known.key.secret))[0] == 200
    form = {"grant_type": "client_credentials", "client_id": known.client.info.id}
    status, told, response = await known.token(**form, client_secret=wrong)
    assert (status, told["error"]) == (429, "slow_down")
    assert "Retry-After" in response.headers
    assert (await known.token(**form, client_secret=known.client.secret))[0] == 200


@pytest.mark.parametrize("who_notices", ["client", "server"])
async def test_a_thousand_calls_on_an_expired_token_refresh_it_once(
    known: Known, caplog: pytest.LogCaptureFixture, who_notices: str
) -> None:
    now = 0.0
    client = {"client_id": known.client.info.id, "client_secret": known.client.secret}
    auth = Auth(client, monotonic=lambda: now)
    far = known.backend(auth)
    await far.whoami()
    known.clock.now += 700
    if who_notices == "client":
        now += 700
    caplog.set_level(logging.INFO, "sandbox_sdk.server.access")
    caplog.clear()
    told: list[str] = []

    async def call() -> None:
        told.append((await far.whoami()).subject)

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(call)
    assert told == ["batch"] * 1000
    routes = [vars(record)["route"] for record in caplog.records]
    assert routes.count(TOKEN_PATH) == 1
    await far.aclose()


async def test_a_second_tenant_makes_weak_levels_be_refused(tmp_path: Path) -> None:
    """Before it has anything: that it may come at any time is enough."""
    operator = await Authority.init(tmp_path)
    authority = await Authority.open(tmp_path)
    async with (
        serving_tcp(tmp_path, authority, EVERYTHING) as (_, endpoint),
        aiohttp.ClientSession(endpoint) as session,
    ):
        headers = {"Authorization": bearer(operator.secret)}
        medium = {**SPEC, "security_level": "medium"}
        statuses: list[int] = []
        starts: list[int] = []
        async with session.post("/v1/sandboxes", json=medium, headers=headers) as response:
            before = f"/v1/sandboxes/{(await response.json())['id']}"
        for change in (authority.admin.create_tenant, authority.admin.disable_tenant, None):
            async with session.post("/v1/sandboxes", json=medium, headers=headers) as response:
                statuses.append(response.status)
            async with session.post(f"{before}/start", headers=headers) as response:
                starts.append(response.status)
            async with session.post(f"{before}/stop", json={}, headers=headers) as response:
                assert response.status == 200
            if change is not None:
                await change("team")
        assert statuses == [201, 422, 201]
        assert starts == [200, 422, 200]
    await authority.aclose()


async def test_a_token_of_another_tenant_finds_nothing(known: Known) -> None:
    await known.authority.admin.create_tenant("others")
    stranger = await known.authority.admin.create_key("others", "ann", grants=("admin",))
    mine = known.backend(Auth({"api_key": known.key.secret}))
    theirs = known.backend(Auth({"api_key": stranger.secret}))
    spec = SandboxSpec(name="x", security_level="high", owners=("ab" * 32,))
    made = await mine.create(spec)
    with pytest.raises(SandboxNotFound):
        await theirs.get(made.id)
    assert await theirs.list() == ()
    _, begun, _ = await known.token(grant_type=SESSION_GRANT, api_key=known.key.secret)
    with pytest.raises(CredentialNotFound):
        await theirs._connection.request(
            type(None), "DELETE", f"/v1/sessions/{begun['session_id']}"
        )
    await mine.aclose()
    await theirs.aclose()
