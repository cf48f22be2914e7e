"""Who calls a server: keys, clients and sessions are known, refused and revoked as promised."""

from __future__ import annotations

import base64
import hmac
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from authorities import START, Served, bearer, served
from blockbuster import blockbuster_ctx

from sandbox_sdk.auth import Principal
from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.auth.book import Book
from sandbox_sdk.auth.limiter import BURST, FailureLimiter
from sandbox_sdk.auth.scopes import ROLES, SCOPES, check_grants, is_operator, narrowed, scopes_of
from sandbox_sdk.auth.secret_texts import Kind, Pepper, new_secret, successor, well_formed
from sandbox_sdk.errors import (
    AuthenticationError,
    ConfigError,
    CredentialNotFound,
    StateError,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "state") as made:
        yield made


async def refusal(server: Served, authorization: str | None, peer: str = "") -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        await server.authority.authenticate(authorization, peer=peer)
    return caught.value


async def test_init_makes_secrets_for_their_owner_alone_and_one_operators_key(
    server: Served,
) -> None:
    folder = server.state / "auth"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("server.keys", "auth.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    principal = await server.authority.authenticate(bearer(server.operator.secret))
    assert principal == Principal(
        tenant="local",
        subject="operator",
        method="api_key",
        scopes=frozenset({"*"}),
        credential=server.operator.info.id,
    )
    assert is_operator(principal)
    assert [key.id for key in await server.authority.admin.keys()] == [server.operator.info.id]


async def test_init_touches_nothing_of_a_server_that_is_there(server: Served) -> None:
    before = (server.state / "auth/server.keys").read_bytes()
    with pytest.raises(StateError, match="is a server's already"):
        await Authority.init(server.state)
    assert (server.state / "auth/server.keys").read_bytes() == before


async def test_a_folder_that_is_no_servers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="is no server's yet"):
        await Authority.open(tmp_path / "state")


async def test_secrets_that_others_may_read_are_refused_with_the_remedy(server: Served) -> None:
    path = server.state / "auth/server.keys"
    path.chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        await Authority.open(server.state)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(StateError, match="is damaged"):
        await Authority.open(server.state)


async def test_no_secret_is_kept_shown_or_logged(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    admin = server.authority.admin
    key = await admin.create_key("local", "ci")
    client = await admin.create_client("local", "batch")
    session = await server.begin(key.secret)
    again = await server.refresh(session["refresh_token"])
    answered = await server.token(
        grant_type="client_credentials", client_id=client.info.id, client_secret=client.secret
    )
    secrets = [
        key.secret,
        client.secret,
        session["refresh_token"],
        session["access_token"],
        again.body["refresh_token"],
        answered.body["access_token"],
    ]
    files = [path for path in server.state.rglob("*") if path.is_file()]
    assert any(path.name.startswith("auth.db") for path in files)
    kept = b"".join(path.read_bytes() for path in files)
    shown = repr((key, client, again, answered, server.authority._keys.keys)) + caplog.text
    for secret in map(str, secrets):
        assert secret.encode() not in kept
        assert secret[10:50].encode() not in kept
        assert secret not in shown
    pepper = server.authority._keys.keys.pepper.reveal()
    assert pepper.hex() not in shown


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "missing"),
        ("", "missing"),
        ("Bearer", "invalid"),
        ("Bearer ", "invalid"),
        ("Basic YTpi", "invalid"),
        ("bearer x", "invalid"),
        ("Bearer é", "invalid"),
        ("Bearer sbx_" + "a" * 52 + "_aaaaaaa", "invalid"),
        pytest.param(f"Bearer {new_secret(Kind.API_KEY)}", "invalid", id="unknown key"),
        pytest.param(f"Bearer {new_secret(Kind.REFRESH_TOKEN)}", "invalid", id="unknown token"),
        ("Bearer v4.public.", "invalid"),
        ("Bearer " + "a" * 100_000, "invalid"),
        ("Bearer v4.public." + "a" * 100_000, "invalid"),
    ],
)
async def test_what_proves_nothing_is_refused_with_a_stable_reason(
    server: Served, authorization: str | None, reason: str
) -> None:
    assert (await refusal(server, authorization)).reason == reason


async def test_a_key_ends_at_its_time_and_at_once_when_revoked(server: Served) -> None:
    admin = server.authority.admin
    short = await admin.create_key("local", "ci", expires_at=START + 60)
    long = await admin.create_key("local", "ci", grants=["reader"])
    found = await server.authority.authenticate(bearer(short.secret))
    assert (found.expires_at, found.scopes) == (START + 60, ROLES["user"])
    server.clock.now += 60
    assert (await refusal(server, bearer(short.secret))).reason == "expired"
    assert (await server.authority.authenticate(bearer(long.secret))).scopes == ROLES["reader"]
    await admin.revoke(long.info.id)
    assert (await refusal(server, bearer(long.secret))).reason == "revoked"
    await admin.revoke(long.info.id)  # again is nothing
    listed = {key.id: key for key in await admin.keys("local")}
    assert listed[long.info.id].revoked_at == server.clock.now
    assert listed[long.info.id].used_at == server.clock.now


async def test_a_use_is_written_once_a_minute(server: Served) -> None:
    key = await server.authority.admin.create_key("local", "ci")

    async def used_at() -> float | None:
        await server.authority.authenticate(bearer(key.secret))
        return next(k for k in await server.authority.admin.keys() if k.id == key.info.id).used_at

    assert await used_at() == START
    server.clock.now += 59
    assert await used_at() == START
    server.clock.now += 1
    assert await used_at() == START + 60


async def test_a_use_that_cannot_be_written_keeps_nobody_out(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    key = await server.authority.admin.create_key("local", "ci")
    with sqlite3.connect(server.state / "auth/auth.db") as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE OF used_at ON api_keys "
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    connection.close()
    assert (await server.authority.authenticate(bearer(key.secret))).subject == "ci"
    assert "auth.use_not_noted" in caplog.text


async def test_nothing_blocks_the_loop(tmp_path: Path) -> None:
    with blockbuster_ctx():
        async with served(tmp_path / "state") as server:
            key = await server.authority.admin.create_key("local", "ci")
            session = await server.begin(key.secret)
            answer = await server.refresh(session["refresh_token"])
            principal = await server.authority.authenticate(bearer(answer.body["access_token"]))
            await server.authority.admin.rotate_signing_key()
            await server.authority.authenticate(bearer(key.secret))
            await refusal(server, "Bearer v4.public.x")
            await server.authority.revoke_session(principal, session["session_id"])
            await server.authority.wait_revoked(principal)


async def test_what_one_process_revokes_every_other_refuses_at_once(server: Served) -> None:
    key = await server.authority.admin.create_key("local", "ci")
    session = await server.begin(key.secret)
    other = await Authority.open(server.state, clock=server.clock)
    try:
        await other.authenticate(bearer(session["access_token"]))
        await other.admin.revoke(key.info.id)
    finally:
        await other.aclose()
    assert (await refusal(server, bearer(key.secret))).reason == "revoked"
    assert (await refusal(server, bearer(session["access_token"]))).reason == "revoked"


async def test_one_tenant_finds_nothing_of_another(server: Served) -> None:
    admin = server.authority.admin
    await admin.create_tenant("acme")
    await admin.create_tenant("umbrella")
    acme = await admin.create_key("acme", "ann", grants=["admin"])
    other = await admin.create_key("umbrella", "bob", grants=["admin"])
    client = await admin.create_client("umbrella", "bob")
    session = await server.begin(other.secret)
    ann = await server.authority.authenticate(bearer(acme.secret))
    assert not is_operator(ann)
    assert await server.authority.sessions(ann) == ()
    with pytest.raises(CredentialNotFound):
        await server.authority.revoke_session(ann, session["session_id"])
    for known in (other.info.id, client.info.id, session["session_id"], "key_no", "x", "", "ten_é"):
        with pytest.raises(CredentialNotFound):
            await admin.revoke(known, tenant="acme")
    with pytest.raises(CredentialNotFound):
        await admin.add_client_secret(client.info.id, tenant="acme")
    assert [key.id for key in await admin.keys("acme")] == [acme.info.id]
    assert await admin.clients("acme") == ()
    assert await admin.sessions("acme") == ()
    await server.authority.authenticate(bearer(session["access_token"]))


async def test_a_tenant_that_is_shut_loses_all_it_has_and_gets_nothing_new(
    server: Served,
) -> None:
    admin = server.authority.admin
    await admin.create_tenant("acme")
    key = await admin.create_key("acme", "ann")
    client = await admin.create_client("acme", "ann")
    session = await server.begin(key.secret)
    await admin.disable_tenant("acme")
    assert (await refusal(server, bearer(key.secret))).reason == "revoked"
    assert (await refusal(server, bearer(session["access_token"]))).reason == "revoked"
    assert (await server.refresh(session["refresh_token"])).status == 400
    answer = await server.token(
        grant_type="client_credentials", client_id=client.info.id, client_secret=client.secret
    )
    assert answer.status == 401
    for make in (admin.create_key, admin.create_client):
        with pytest.raises(CredentialNotFound):
            await make("acme", "ann")
    with pytest.raises(CredentialNotFound):
        await admin.disable_tenant("nobody")
    shut = {tenant.id: tenant.disabled_at for tenant in await admin.tenants()}
    assert shut == {"local": None, "acme": START}


async def test_all_faults_of_a_new_key_are_told_at_once(server: Served) -> None:
    with pytest.raises(ConfigError) as caught:
        await server.authority.admin.create_key(
            "local", "a\nb", grants=["usr", "user"], expires_at=START
        )
    assert [line.partition(":")[0] for line in caught.value.faults] == [
        "subject",
        "expires_at",
        "grants",
    ]
    assert 'did you mean "user"?' in str(caught.value)
    with pytest.raises(ConfigError, match="at least one"):
        check_grants([])
    for name in ("Acme", "a" * 64, "", "-a", "a/b", "local"):
        with pytest.raises(ConfigError):
            await server.authority.admin.create_tenant(name)


async def test_failures_are_slowed_down_and_a_correct_secret_never_is(server: Served) -> None:
    for _ in range(BURST):
        error = await refusal(server, bearer(new_secret(Kind.API_KEY)), peer="192.0.2.7")
        assert error.reason == "invalid"
    error = await refusal(server, bearer("v4.public.x"), peer="192.0.2.7")
    assert (error.reason, error.retry_after is not None) == ("rate_limited", True)
    good = bearer(server.operator.secret)
    assert (await server.authority.authenticate(good, peer="192.0.2.7")).subject == "operator"
    error = await refusal(server, bearer(new_secret(Kind.API_KEY)), peer="192.0.2.8")
    assert error.reason == "invalid"
    form = [("grant_type", "client_credentials"), ("client_id", "x"), ("client_secret", "y")]
    answer = await server.authority.token(form, peer="192.0.2.7")
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1


def test_the_limiter_gives_one_failure_a_second_back_and_forgets_the_longest_silent() -> None:
    now = 0.0
    limiter = FailureLimiter(lambda: now)
    assert [limiter.failed("a") for _ in range(BURST)] == [None] * BURST
    assert limiter.failed("a") == pytest.approx(1)
    now = 1.0
    assert limiter.failed("a") is None
    assert limiter.failed("a") == pytest.approx(1)
    for other in range(20_000):
        limiter.failed(str(other))
    assert len(limiter._buckets) == 10_000
    assert limiter.failed("a") is None  # forgotten, and so as new


def test_the_addresses_of_one_ipv6_network_fail_together() -> None:
    limiter = FailureLimiter(lambda: 0.0)
    waits = [limiter.failed(f"2001:db8::{number:x}") for number in range(BURST + 1)]
    assert [wait is None for wait in waits] == [True] * BURST + [False]
    assert limiter.failed("2001:db8:0:1::1") is None
    assert limiter.failed("unix:worker") is None


async def test_many_processes_may_open_one_state_at_once(server: Served) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(open_and_close, server.state)


@pytest.mark.slow
async def test_ten_thousand_wrong_secrets_slow_no_other_down(server: Served) -> None:
    """A55: no slow hash, no growing memory, and other keys are unaffected."""
    reasons = set[str]()
    for _ in range(10_000):
        reasons.add((await refusal(server, bearer(new_secret(Kind.API_KEY)), "x")).reason)
    assert reasons == {"invalid", "rate_limited"}
    await server.authority.authenticate(bearer(server.operator.secret), peer="x")


async def test_a_client_is_found_by_its_secret_and_its_id_compared_in_constant_time(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return real(first, second)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    admin = server.authority.admin
    one, two = [await admin.create_client("local", name) for name in ("one", "two")]
    answer = await server.token(
        grant_type="client_credentials", client_id=one.info.id, client_secret=two.secret
    )
    assert answer.status == 401
    assert compared == [(two.info.id.encode(), one.info.id.encode())]


async def test_a_client_gets_access_tokens_and_no_refresh_token(server: Served) -> None:
    client = await server.authority.admin.create_client("local", "batch", grants=["user"])
    form = {"grant_type": "client_credentials"}
    basic = base64.b64encode(f"{client.info.id}:{client.secret}".encode()).decode()
    in_body = {"client_id": client.info.id, "client_secret": client.secret}
    for answer in (
        await server.token(**form, **in_body),
        await server.token(**form, authorization=f"Basic {basic}"),
    ):
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert set(answer.body) == {"access_token", "token_type", "expires_in", "scope"}
        assert (answer.body["token_type"], answer.body["expires_in"]) == ("Bearer", 600)
        found = await server.authority.authenticate(bearer(answer.body["access_token"]))
        assert (found.method, found.subject, found.credential) == (
            "token",
            "batch",
            client.info.id,
        )
        assert found.scopes == ROLES["user"]
    server.clock.now += 600
    assert (await refusal(server, bearer(answer.body["access_token"]))).reason == "expired"


async def test_unknown_clients_and_wrong_secrets_get_the_same_answer(server: Served) -> None:
    client = await server.authority.admin.create_client("local", "batch")
    answers = [
        await server.token(grant_type="client_credentials", client_id=name, client_secret=secret)
        for name, secret in (
            ("cli_unknown", client.secret),
            (client.info.id, new_secret(Kind.CLIENT_SECRET)),
            (client.info.id, "x"),
            ("", ""),
        )
    ]
    assert {(a.status, a.body["error"], a.body["error_description"]) for a in answers} == {
        (401, "invalid_client", "the credentials are not good")
    }


async def test_two_secrets_of_a_client_are_good_at_once_and_no_third(server: Served) -> None:
    admin = server.authority.admin
    client = await admin.create_client("local", "batch")
    secrets = [client.secret]
    for _ in range(2):
        server.clock.now += 1
        secrets.append((await admin.add_client_secret(client.info.id)).secret)
    statuses = [
        (
            await server.token(
                grant_type="client_credentials", client_id=client.info.id, client_secret=secret
            )
        ).status
        for secret in secrets
    ]
    assert statuses == [401, 200, 200]
    await admin.revoke(client.info.id)
    with pytest.raises(CredentialNotFound):
        await admin.add_client_secret(client.info.id)


async def test_a_token_can_be_asked_for_with_fewer_scopes_and_never_with_more(
    server: Served,
) -> None:
    key = await server.authority.admin.create_key("local", "ci", grants=["user"])
    session = await server.begin(key.secret, scope="runs:read sandboxes:read")
    assert session["scope"] == "runs:read sandboxes:read"
    for scope in ("keys:write", "*", "nonsense", "runs:read keys:write"):
        answer = await server.token(
            grant_type="refresh_token", refresh_token=session["refresh_token"], scope=scope
        )
        assert (answer.status, answer.body["error"]) == (400, "invalid_scope"), scope
    wider = await server.token(
        grant_type="refresh_token", refresh_token=session["refresh_token"], scope="runs:write"
    )
    assert wider.status == 400  # the session never had it
    fewer = await server.token(
        grant_type="refresh_token", refresh_token=session["refresh_token"], scope="runs:read"
    )
    assert fewer.body["scope"] == "runs:read"


@pytest.mark.parametrize(
    ("form", "authorization", "status", "error"),
    [
        ([], None, 400, "invalid_request"),
        ([("grant_type", "password")], None, 400, "unsupported_grant_type"),
        ([("grant_type", "a"), ("grant_type", "a")], None, 400, "invalid_request"),
        ([("grant_type", "a" * 5000)], None, 400, "invalid_request"),
        ([("grant_type", "refresh_token")], None, 400, "invalid_grant"),
        ([("grant_type", "client_credentials")], "Basic !", 401, "invalid_client"),
        ([("grant_type", "client_credentials")], "Digest x", 401, "invalid_client"),
        ([("grant_type", "client_credentials")], "B" * 5000, 400, "invalid_request"),
        (
            [("grant_type", "client_credentials"), ("client_id", "x")],
            "Basic YTpi",
            400,
            "invalid_request",
        ),
        ([("grant_type", "client_credentials"), ("other", "x")], "Basic YTpi", 401, ""),
    ],
)
async def test_malformed_forms_are_refused_as_rfc_6749_says(
    server: Served,
    form: list[tuple[str, str]],
    authorization: str | None,
    status: int,
    error: str,
) -> None:
    answer = await server.authority.token(form, authorization=authorization)
    assert answer.status == status
    assert str(answer.body["error"]).startswith(error)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_waiting_ends_within_a_second_of_a_revocation_elsewhere(server: Served) -> None:
    admin = server.authority.admin
    key = await admin.create_key("local", "ci")
    session = await server.begin(key.secret)
    kept = await admin.create_key("local", "other")
    waiting = [
        await server.authority.authenticate(bearer(secret))
        for secret in (key.secret, session["access_token"])
    ]
    bystander = await server.authority.authenticate(bearer(kept.secret))
    ended: list[str] = []

    async def wait(principal: Principal) -> None:
        await server.authority.wait_revoked(principal)
        ended.append(principal.credential or "")

    async with anyio.create_task_group() as group:
        group.start_soon(wait, bystander)
        async with anyio.create_task_group() as inner:
            for principal in waiting:
                inner.start_soon(wait, principal)
            await anyio.to_thread.run_sync(revoke_elsewhere, server.state, key.info.id)
            with anyio.fail_after(1):
                while len(ended) < 2:
                    await anyio.lowlevel.checkpoint()
        assert bystander.credential not in ended
        group.cancel_scope.cancel()
    assert sorted(ended) == sorted(p.credential or "" for p in waiting)


async def test_five_hundred_who_wait_are_told_and_only_one_of_them_looks(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await server.authority.admin.create_key("local", "ci")
    principal = await server.authority.authenticate(bearer(key.secret))
    looks = 0
    real = Book.revocations

    async def look(book: Book) -> int:
        nonlocal looks
        looks += 1
        return await real(book)

    monkeypatch.setattr(Book, "revocations", look)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(500):
                group.start_soon(server.authority.wait_revoked, principal)
            await anyio.wait_all_tasks_blocked()
            begun = looks
            await server.authority.admin.create_key("local", "other")  # a write that revokes none
            await server.authority.admin.revoke(key.info.id)
    assert begun >= 500  # each its own, to begin with
    assert looks - begun < 50


async def test_waiting_goes_on_when_the_task_that_looked_is_cancelled(server: Served) -> None:
    key = await server.authority.admin.create_key("local", "ci")
    principal = await server.authority.authenticate(bearer(key.secret))
    ended = anyio.Event()

    async def wait() -> None:
        await server.authority.wait_revoked(principal)
        ended.set()

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.05):
            await server.authority.wait_revoked(principal)  # the first, and so the one that looks
        group.start_soon(wait)
        await anyio.to_thread.run_sync(revoke_elsewhere, server.state, key.info.id)
        with anyio.fail_after(1):
            await ended.wait()


async def test_waiting_for_whom_the_system_vouches_never_ends(server: Served) -> None:
    peer = Principal(tenant="local", subject="root", method="peer", scopes=frozenset({"*"}))
    with anyio.move_on_after(0.05) as scope:
        await server.authority.wait_revoked(peer)
    assert scope.cancelled_caught


async def test_a_newer_database_is_refused(server: Served) -> None:
    with sqlite3.connect(server.state / "auth/auth.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match="upgrade"):
        await Authority.open(server.state)


def test_scopes_are_a_closed_table() -> None:
    for role, scopes in ROLES.items():
        assert scopes <= {*SCOPES, "*"}, role
    assert scopes_of(["user", "keys:read"]) == ROLES["user"] | {"keys:read"}
    assert scopes_of(["admin", "runs:read"]) == {"*"}
    assert scopes_of(["of a later version"]) == frozenset()
    assert narrowed(frozenset({"*"}), ["runs:read"]) == frozenset({"runs:read"})
    assert narrowed(frozenset({"runs:read"}), ["*"]) is None


def test_texts_of_secrets_are_checked_before_anything_is_looked_up() -> None:
    pepper = Pepper.generate()
    for kind in Kind:
        text = new_secret(kind)
        assert text.startswith(kind)
        assert well_formed(kind, text)
        assert not any(well_formed(other, text) for other in Kind if other is not kind)
        for at in range(len(text)):
            changed = text[:at] + ("b" if text[at] != "b" else "c") + text[at + 1 :]
            assert not well_formed(kind, changed), at
        assert not well_formed(kind, text.upper())
        assert not well_formed(kind, text + "\n")
    token = new_secret(Kind.REFRESH_TOKEN)
    assert successor(pepper, token) == successor(pepper, token) != token
    assert well_formed(Kind.REFRESH_TOKEN, successor(pepper, token))
    assert successor(Pepper.generate(), token) != successor(pepper, token)


async def open_and_close(state: Path) -> None:
    await (await Authority.open(state)).aclose()


def revoke_elsewhere(state: Path, id: str) -> None:
    """Revoke in another process, as an administrator's command does."""
    code = (
        "import sys, anyio; from pathlib import Path\n"
        "from sandbox_sdk.auth.authority import Authority\n"
        "async def main():\n"
        "    authority = await Authority.open(Path(sys.argv[1]))\n"
        "    await authority.admin.revoke(sys.argv[2])\n"
        "    await authority.aclose()\n"
        "anyio.run(main)\n"
    )
    subprocess.run([sys.executable, "-c", code, state, id], check=True, timeout=15)
