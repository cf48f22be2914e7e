"""Sessions: refresh tokens rotate, a lost answer can be had again, a copy ends the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from authorities import START, Served, bearer, served

from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.auth.exchange import SESSION_GRANT
from sandbox_sdk.auth.grants import TokenAnswer
from sandbox_sdk.auth.secret_texts import Kind, new_secret
from sandbox_sdk.auth.session_rows import IDLE, LONGEST, REPEAT
from sandbox_sdk.crypto_utils import SignedToken
from sandbox_sdk.errors import AuthenticationError, CredentialNotFound

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "state") as made:
        yield made


async def key_of(server: Served, subject: str = "ann", *grants: str) -> str:
    made = await server.authority.admin.create_key("local", subject, grants=grants or ("user",))
    return made.secret


async def test_a_session_is_who_its_key_is_and_goes_on_by_refresh_tokens(server: Served) -> None:
    session = await server.begin(await key_of(server))
    for _ in range(5):
        found = await server.authority.authenticate(bearer(session["access_token"]))
        assert (found.subject, found.method) == ("ann", "token")
        assert found.credential == session["session_id"]
        assert found.expires_at == int(server.clock.now) + 600
        server.clock.now += 480
        answer = await server.refresh(session["refresh_token"])
        assert answer.status == 200
        assert answer.body["session_id"] == session["session_id"]
        assert answer.body["refresh_token"] != session["refresh_token"]
        session = dict(answer.body)


async def test_the_key_may_come_in_the_header_too(server: Served) -> None:
    key = await key_of(server)
    answer = await server.token(grant_type=SESSION_GRANT, authorization=bearer(key))
    assert answer.status == 200
    both = await server.token(grant_type=SESSION_GRANT, api_key=key, authorization=bearer(key))
    assert both.body["error"] == "invalid_request"


async def test_the_token_before_gives_the_same_successor_for_thirty_seconds(
    server: Served,
) -> None:
    session = await server.begin(await key_of(server))
    first = await server.refresh(session["refresh_token"])
    server.clock.now += REPEAT
    again = await server.refresh(session["refresh_token"])
    assert again.body["refresh_token"] == first.body["refresh_token"]
    assert (await server.refresh(str(first.body["refresh_token"]))).status == 200


async def test_the_token_before_ends_the_session_after_thirty_seconds(server: Served) -> None:
    session = await server.begin(await key_of(server))
    first = await server.refresh(session["refresh_token"])
    server.clock.now += REPEAT + 0.001
    await assert_ended(server, await server.refresh(session["refresh_token"]), first)


async def test_an_older_token_ends_the_session_at_once(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    session = await server.begin(await key_of(server))
    first = await server.refresh(session["refresh_token"])
    second = await server.refresh(str(first.body["refresh_token"]))
    await assert_ended(server, await server.refresh(session["refresh_token"]), second)
    (told,) = [record for record in caplog.records if record.name == "sandbox_sdk.auth"]
    assert (told.message, vars(told)["session"]) == (
        "auth.refresh_token_reused",
        session["session_id"],
    )


async def assert_ended(server: Served, answer: TokenAnswer, last: TokenAnswer) -> None:
    """The thief's copy ended the session for the owner too, whose access token is void."""
    assert (answer.status, answer.body["error"]) == (400, "invalid_grant")
    assert "copy" in str(answer.body["error_description"])
    after = await server.refresh(str(last.body["refresh_token"]))
    assert (after.status, after.body["error"]) == (400, "invalid_grant")
    with pytest.raises(AuthenticationError) as caught:
        await server.authority.authenticate(bearer(last.body["access_token"]))
    assert caught.value.reason == "revoked"


async def test_a_session_of_another_family_goes_on(server: Served) -> None:
    key = await key_of(server)
    one, two = await server.begin(key), await server.begin(key)
    first = await server.refresh(one["refresh_token"])
    await server.refresh(str(first.body["refresh_token"]))
    assert (await server.refresh(one["refresh_token"])).status == 400
    assert (await server.refresh(two["refresh_token"])).status == 200


async def test_many_at_once_get_one_successor(server: Served) -> None:
    session = await server.begin(await key_of(server))
    found: set[object] = set()

    async def refresh() -> None:
        found.add((await server.refresh(session["refresh_token"])).body["refresh_token"])

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(refresh)
    assert len(found) == 1


async def test_two_servers_of_one_state_give_one_successor(server: Served) -> None:
    session = await server.begin(await key_of(server))
    other = await Authority.open(server.state, clock=server.clock)
    try:
        form = [("grant_type", "refresh_token"), ("refresh_token", session["refresh_token"])]
        theirs = await other.token(form)
        ours = await server.authority.token(form)
    finally:
        await other.aclose()
    assert theirs.body["refresh_token"] == ours.body["refresh_token"]


async def test_wrong_refresh_tokens_touch_no_session(server: Served) -> None:
    session = await server.begin(await key_of(server))
    for wrong in (new_secret(Kind.REFRESH_TOKEN), session["refresh_token"][:-1], "", "sbxr_"):
        answer = await server.refresh(wrong)
        assert (answer.status, answer.body["error"]) == (400, "invalid_grant")
    assert (await server.refresh(session["refresh_token"])).status == 200


async def test_sessions_end_when_idle_and_at_their_longest(server: Served) -> None:
    key = await key_of(server)
    idle = await server.begin(key)
    server.clock.now += IDLE
    assert "expired" in str((await server.refresh(idle["refresh_token"])).body)
    busy = await server.begin(key)
    token: object = busy["refresh_token"]
    turns = int(LONGEST / (IDLE - 1))
    for _ in range(turns):
        server.clock.now += IDLE - 1
        answer = await server.refresh(str(token))
        assert answer.status == 200
        token = answer.body["refresh_token"]
    server.clock.now += IDLE - 1
    assert "expired" in str((await server.refresh(str(token))).body)


async def test_a_session_ends_with_its_key(server: Served) -> None:
    made = await server.authority.admin.create_key("local", "ann", expires_at=START + 300)
    session = await server.begin(made.secret)
    assert session["expires_in"] == 300
    server.clock.now += 300
    assert (await server.refresh(session["refresh_token"])).status == 400
    with pytest.raises(AuthenticationError):
        await server.authority.authenticate(bearer(session["access_token"]))


async def test_a_session_of_which_no_second_is_left_gives_no_token(server: Served) -> None:
    made = await server.authority.admin.create_key("local", "ann", expires_at=START + 300)
    session = await server.begin(made.secret)
    server.clock.now += 299.8
    answer = await server.refresh(session["refresh_token"])
    assert (answer.status, answer.body["error"]) == (400, "invalid_grant")


async def test_a_key_that_is_none_any_more_begins_no_session(server: Served) -> None:
    made = await server.authority.admin.create_key("local", "ann")
    await server.authority.admin.revoke(made.info.id)
    answer = await server.token(grant_type=SESSION_GRANT, api_key=made.secret)
    assert (answer.status, answer.body["error"]) == (401, "invalid_client")


async def test_everybody_sees_and_ends_their_own_and_only_some_those_of_others(
    server: Served,
) -> None:
    ann, bob = await key_of(server, "ann"), await key_of(server, "bob")
    chief = await key_of(server, "chief", "sessions:read", "sessions:write")
    watcher = await key_of(server, "watcher", "sessions:read")
    sessions = {
        name: (await server.begin(key))["session_id"] for name, key in (("ann", ann), ("bob", bob))
    }
    who = {
        name: await server.authority.authenticate(bearer(key))
        for name, key in (("ann", ann), ("bob", bob), ("chief", chief), ("watcher", watcher))
    }
    authority = server.authority
    assert [s.id for s in await authority.sessions(who["ann"])] == [sessions["ann"]]
    for name in ("chief", "watcher"):
        assert [s.id for s in await authority.sessions(who[name])] == list(sessions.values())
    for name in ("bob", "watcher"):
        with pytest.raises(CredentialNotFound):
            await authority.revoke_session(who[name], sessions["ann"])
    with pytest.raises(CredentialNotFound):  # a key is no session, whoever asks
        await authority.revoke_session(who["chief"], server.operator.info.id)
    await authority.revoke_session(who["ann"], sessions["ann"])
    await authority.revoke_session(who["chief"], sessions["bob"])
    listed = await authority.sessions(who["chief"])
    assert [s.revoked_at for s in listed] == [START, START]


async def test_sessions_that_ended_long_ago_are_forgotten(server: Served) -> None:
    key = await key_of(server)
    old = await server.begin(key)
    await server.refresh(old["refresh_token"])
    server.clock.now += LONGEST + 86401
    new = await server.begin(key)
    assert [s.id for s in await server.authority.admin.sessions()] == [new["session_id"]]


async def test_a_clock_that_was_set_back_ends_no_session(server: Served) -> None:
    """A50: a day back between a rotation and its repetition."""
    session = await server.begin(await key_of(server))
    first = await server.refresh(session["refresh_token"])
    server.clock.now -= 86400
    again = await server.refresh(session["refresh_token"])
    assert again.body["refresh_token"] == first.body["refresh_token"]


async def test_a_signing_key_that_another_process_made_is_known_at_once(server: Served) -> None:
    key = await key_of(server)
    before = await server.begin(key)
    other = await Authority.open(server.state, clock=server.clock)
    try:
        server.clock.now += 1
        made = await other.admin.rotate_signing_key()
        answer = await other.token([("grant_type", SESSION_GRANT), ("api_key", key)])
    finally:
        await other.aclose()
    assert made in footer(str(answer.body["access_token"]))
    for token in (answer.body["access_token"], before["access_token"]):
        assert (await server.authority.authenticate(bearer(token))).subject == "ann"
    after = await server.begin(key)
    assert made in footer(after["access_token"])


async def test_a_key_that_was_stolen_can_be_forgotten_at_once(server: Served) -> None:
    session = await server.begin(await key_of(server))
    await server.authority.admin.rotate_signing_key(forget=True)
    with pytest.raises(AuthenticationError):
        await server.authority.authenticate(bearer(session["access_token"]))
    again = await server.refresh(session["refresh_token"])  # nobody has to begin anew
    await server.authority.authenticate(bearer(again.body["access_token"]))


async def test_a_key_that_another_process_forgot_is_refused_within_a_second(server: Served) -> None:
    session = await server.begin(await key_of(server))
    await server.authority.authenticate(bearer(session["access_token"]))
    other = await Authority.open(server.state, clock=server.clock)
    await other.admin.rotate_signing_key(forget=True)
    await other.aclose()

    async def use() -> None:
        while True:
            await server.authority.authenticate(bearer(session["access_token"]))

    with anyio.fail_after(5), pytest.raises(AuthenticationError):
        await use()


def footer(access_token: str) -> str:
    """Return the footer of a token, which names the key that signed it."""
    return SignedToken.parse(access_token).footer.decode()
