"""The caller's side: one refresh for all who wait, shared sessions, secrets that stay inside."""

from __future__ import annotations

import copy
import email.utils
import errno
import json
import logging
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio
import attrs
import pytest
from authorities import Served, served

from sandbox_sdk import Auth
from sandbox_sdk.auth import AuthStatus
from sandbox_sdk.auth.client import RENEWED_AT
from sandbox_sdk.auth.endpoint import check_endpoint
from sandbox_sdk.auth.exchange import TOKEN_PATH
from sandbox_sdk.auth.secret_texts import Kind, new_secret
from sandbox_sdk.config import Settings
from sandbox_sdk.errors import AuthenticationError, ConfigError, ProtocolError, StateError

pytestmark = pytest.mark.anyio

HERE = "https://sandbox.example:443"
CANARY = "sbxs_canary"
TOKEN: dict[str, object] = {"access_token": "a", "token_type": "Bearer", "expires_in": 9}


@attrs.define
class Time:
    """A clock that is never set, and the one on the wall."""

    steady: float = 1000.0
    wall: float = 1_900_000_000.0

    def later(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds


@attrs.define
class Line:
    """How forms reach a real authority, and what goes wrong on the way."""

    server: Served
    asked: list[dict[str, str]] = attrs.field(factory=list)
    answer: tuple[int, object] | None = None
    broken: Exception | None = None
    date: str | None = None
    lost: int = 0

    async def post(self, path: str, form: Mapping[str, str]) -> tuple[int, object, str | None]:
        assert path == TOKEN_PATH
        self.asked.append(dict(form))
        await anyio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken
        if self.answer is not None:
            return (*self.answer, self.date)
        found = await self.server.authority.token(list(form.items()))
        if self.lost:
            self.lost -= 1
            raise ConnectionError(errno.ECONNRESET, "the answer was lost")
        return found.status, json.loads(json.dumps(dict(found.body))), self.date


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    async with served(tmp_path / "state") as made:
        yield Line(made)


@attrs.frozen
class Caller:
    auth: Auth
    time: Time
    line: Line

    def later(self, seconds: float) -> None:
        self.time.later(seconds)
        self.line.server.clock.now += seconds


def caller(line: Line, auth_config: Mapping[str, object], time: Time | None = None) -> Caller:
    made = time or Time(wall=line.server.clock.now)
    auth = Auth(auth_config, monotonic=lambda: made.steady, clock=lambda: made.wall)
    auth.bind(line.post, HERE)
    return Caller(auth, made, line)


async def client_of(line: Line) -> dict[str, object]:
    client = await line.server.authority.admin.create_client("local", "batch")
    return {"client_id": client.info.id, "client_secret": client.secret}


async def good(line: Line, header: str | None) -> str:
    return (await line.server.authority.authenticate(header)).subject


async def stored_session(line: Line, path: Path) -> str:
    key = await line.server.authority.admin.create_key("local", "ann")
    return await caller(line, {"api_key": key.secret}).auth.begin_session(path)


# Which credentials are used


async def test_a_token_goes_before_a_key_before_a_client_before_a_session(line: Line) -> None:
    key = new_secret(Kind.API_KEY)
    given: dict[str, object] = {
        "token": "v4.public.x",
        "api_key": key,
        **await client_of(line),
        "session": "/nowhere",
    }
    forms = {"token": ["token"], "api_key": ["api_key"], "client": ["client_id", "client_secret"]}
    for method, names in forms.items():
        auth = caller(line, given).auth
        assert auth.method == method
        told = auth.told(AuthStatus(authenticated=True, method="x", subject="ann"))
        assert (told.method, told.subject) == (method, "ann")
        assert "; not used: " in told.detail
        for name in names:
            del given[name]
    assert caller(line, given).auth.method == "session"
    assert line.asked == []


async def test_a_key_and_a_token_are_sent_as_they_are_and_never_renewed(line: Line) -> None:
    key = new_secret(Kind.API_KEY)
    for config, secret in (({"api_key": key}, key), ({"token": "v4.public.x"}, "v4.public.x")):
        auth = caller(line, config).auth
        header = await auth.header()
        assert header == f"Bearer {secret}"
        assert await auth.refused(header) is None
    assert line.asked == []


async def test_without_credentials_nothing_is_sent(line: Line) -> None:
    auth = caller(line, {}).auth
    assert (auth.method, await auth.header(), await auth.refused("Bearer x")) == (None, None, None)
    told = auth.told(AuthStatus(authenticated=True, method="peer", subject="root"))
    assert told.method == "peer"


def test_settings_give_the_same_forms(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not needed"):
        settings = Settings.load({"session": tmp_path / "s", "token": "v4.public.x"}, environ={})
    auth = Auth.from_settings(settings)
    assert auth.method == "token"
    assert "v4.public.x" in settings.secrets
    with pytest.warns(UserWarning, match="not needed"):
        settings = Settings.load(environ={"SANDBOX_SESSION": str(tmp_path / "s")})
    assert Auth.from_settings(settings).method == "session"


@pytest.mark.parametrize(
    ("config", "faults"),
    [
        ({"api_key": "your-api-key", "client_id": "a"}, ["api_key", "client_secret"]),
        ({"client_secret": "<secret>"}, ["client_secret", "client_id"]),
        ({"api_kye": "a", "token": 3}, ["auth_config.api_kye", "auth_config.token"]),
        ({"token": "a\r\nX: y"}, ["auth_config.token"]),
        ({"token": "a b"}, ["token"]),
        ({"token": "é"}, ["token"]),
        ({"api_key": new_secret(Kind.API_KEY)[:-1]}, ["api_key"]),
        ({"api_key": new_secret(Kind.API_KEY).upper().replace("SBX", "sbx")}, ["api_key"]),
    ],
)
def test_wrong_credentials_are_told_all_at_once_without_being_shown(
    config: dict[str, object], faults: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Auth(config)
    assert [line.partition(":")[0] for line in caught.value.faults] == faults
    for value in config.values():
        assert not isinstance(value, str) or len(value) < 6 or value not in str(caught.value)


# Renewal


async def test_a_clients_token_is_asked_for_once_and_renewed_at_four_fifths_of_its_life(
    line: Line,
) -> None:
    it = caller(line, await client_of(line))
    first = await it.auth.header()
    assert await good(line, first) == "batch"
    it.later(600 * RENEWED_AT - 0.01)
    assert await it.auth.header() == first
    it.later(0.02)
    second = await it.auth.header()
    assert second != first
    assert await good(line, second) == "batch"
    assert len(line.asked) == 2


@pytest.mark.parametrize("form", ["client", "session"])
async def test_a_thousand_calls_on_an_expired_token_make_one_refresh(
    line: Line, tmp_path: Path, form: str
) -> None:
    await stored_session(line, tmp_path / "session")
    config = await client_of(line) if form == "client" else {"session": tmp_path / "session"}
    it = caller(line, config)
    await it.auth.header()
    it.later(601)
    before = len(line.asked)
    found: list[str | None] = []

    async def call() -> None:
        found.append(await it.auth.header())

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(call)
    assert len(line.asked) - before == 1
    assert (len(found), len(set(found))) == (1000, 1)
    await good(line, found[0])


@pytest.mark.parametrize("form", ["client", "session"])
async def test_a_thousand_calls_answered_with_401_make_one_refresh(
    line: Line, tmp_path: Path, form: str
) -> None:
    await stored_session(line, tmp_path / "session")
    config = await client_of(line) if form == "client" else {"session": tmp_path / "session"}
    it = caller(line, config)
    old = await it.auth.header()
    assert old is not None
    await line.server.authority.admin.rotate_signing_key(forget=True)
    before = len(line.asked)
    found: list[str | None] = []

    async def call() -> None:
        found.append(await it.auth.refused(old))

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(call)
    assert len(line.asked) - before == 1
    assert set(found) == {await it.auth.header()} != {old}


async def test_who_waited_for_a_refresh_that_failed_gets_its_failure(line: Line) -> None:
    config = await client_of(line)
    it = caller(line, {**config, "client_secret": new_secret(Kind.CLIENT_SECRET)})
    errors: list[AuthenticationError] = []

    async def call() -> None:
        with pytest.raises(AuthenticationError) as caught:
            await it.auth.header()
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(call)
    assert len(line.asked) == 1
    assert {error.reason for error in errors} == {"invalid"}
    with pytest.raises(AuthenticationError):  # a later call tries again
        await it.auth.header()
    assert len(line.asked) == 2


async def test_a_refresh_that_is_cancelled_leaves_the_next_call_its_turn(line: Line) -> None:
    it = caller(line, await client_of(line))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await it.auth.header()
    assert await good(line, await it.auth.header()) == "batch"


async def test_a_token_that_is_still_good_is_used_while_the_server_is_away(line: Line) -> None:
    it = caller(line, await client_of(line))
    first = await it.auth.header()
    it.later(500)
    line.broken = ConnectionError(errno.ECONNREFUSED, "refused")
    for _ in range(5):
        assert await it.auth.header() == first
    assert len(line.asked) == 2  # and is not asked at every call
    it.later(1)
    line.broken = None
    assert await it.auth.header() != first
    it.later(700)
    line.broken = ConnectionError(errno.ECONNREFUSED, "refused")
    with pytest.raises(ConnectionError):
        await it.auth.header()


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        ((200, None), ProtocolError, ""),
        ((200, TOKEN | {"access_token": "a\r\nb"}), ProtocolError, ""),
        ((200, TOKEN | {"access_token": "a" * 5000}), ProtocolError, ""),
        ((200, TOKEN | {"token_type": "mac"}), ProtocolError, ""),
        ((200, TOKEN | {"expires_in": -1}), ProtocolError, ""),
        ((200, TOKEN | {"expires_in": float("nan")}), ProtocolError, ""),
        ((200, TOKEN | {"refresh_token": 1}), ProtocolError, ""),
        ((302, None), AuthenticationError, "unavailable"),
        ((404, "<html>"), AuthenticationError, "unavailable"),
        ((500, {"error": "x"}), AuthenticationError, "unavailable"),
        ((401, {"error": "invalid_client"}), AuthenticationError, "invalid"),
        ((400, {"error": "invalid_grant"}), AuthenticationError, "revoked"),
        ((429, {"error": "slow_down"}), AuthenticationError, "rate_limited"),
    ],
)
async def test_answers_that_are_no_tokens_are_typed_errors(
    line: Line, answer: tuple[int, object], error: type[Exception], reason: str
) -> None:
    line.answer = answer
    with pytest.raises(error) as caught:
        await caller(line, await client_of(line)).auth.header()
    assert getattr(caught.value, "reason", "") == reason


async def test_what_a_server_says_is_shown_short_printable_and_without_secrets(line: Line) -> None:
    config = await client_of(line)
    said = f"\x1b[31m{config['client_secret']}\n" + "x" * 5000
    line.answer = (401, {"error": "invalid_client", "error_description": said})
    with pytest.raises(AuthenticationError) as caught:
        await caller(line, config).auth.header()
    shown = str(caught.value)
    assert str(config["client_secret"]) not in shown
    assert shown.isprintable()
    assert len(shown) < 400


async def test_how_far_the_clocks_are_apart_is_learned_from_date(line: Line) -> None:
    it = caller(line, await client_of(line))
    line.date = email.utils.formatdate(it.time.wall + 3600, usegmt=True)
    await it.auth.header()
    assert it.auth.skew == pytest.approx(3600, abs=1)
    told = it.auth.told(AuthStatus(authenticated=True, method="token", subject="batch"))
    assert "clock is +3600 s off" in told.detail or "clock is +3599 s off" in told.detail
    for nonsense in ("", None, "tomorrow", "Mon, 99 Foo 2030 99:99:99 GMT"):
        it.auth.learn_date(nonsense)
    assert it.auth.skew == pytest.approx(3600, abs=1)
    it.auth.learn_date(email.utils.formatdate(it.time.wall, usegmt=True))
    assert it.auth.skew == 0


# Sessions


async def test_a_session_is_begun_with_a_key_kept_for_its_owner_and_used_by_others(
    line: Line, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    session = await stored_session(line, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    it = caller(line, {"session": path})
    header = await it.auth.header()
    assert (await line.server.authority.authenticate(header)).credential == session
    assert len(line.asked) == 1  # what was begun is still good
    it.later(481)
    assert await it.auth.header() != header
    other = caller(line, {"session": str(path)}, it.time)
    assert await other.auth.header() == await it.auth.header()
    assert len(line.asked) == 2  # what one renewed, the other takes over


async def test_an_answer_that_was_lost_is_asked_for_again_and_the_session_goes_on(
    line: Line, tmp_path: Path
) -> None:
    await stored_session(line, tmp_path / "session")
    it = caller(line, {"session": tmp_path / "session"})
    it.later(601)
    line.lost = 1
    with pytest.raises(ConnectionError):
        await it.auth.header()
    it.later(29)
    assert await good(line, await it.auth.header()) == "ann"
    it.later(601)
    assert await good(line, await it.auth.header()) == "ann"


async def test_a_session_that_was_revoked_is_an_error_that_says_so(
    line: Line, tmp_path: Path
) -> None:
    session = await stored_session(line, tmp_path / "session")
    it = caller(line, {"session": tmp_path / "session"})
    header = await it.auth.header()
    assert header is not None
    await line.server.authority.admin.revoke(session)
    with pytest.raises(AuthenticationError, match="begin a new one") as caught:
        await it.auth.refused(header)
    assert caught.value.reason == "revoked"


async def test_a_session_is_sent_to_its_own_server_only(line: Line, tmp_path: Path) -> None:
    await stored_session(line, tmp_path / "session")
    auth = Auth({"session": tmp_path / "session"})
    auth.bind(line.post, "https://elsewhere.example")
    before = len(line.asked)
    with pytest.raises(AuthenticationError, match=r"not of https://elsewhere\.example:443"):
        await auth.header()
    assert len(line.asked) == before


async def test_files_that_are_no_session_of_ones_own_are_refused(
    line: Line, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    with pytest.raises(AuthenticationError, match="no session at"):
        await caller(line, {"session": path}).auth.header()
    await stored_session(line, path)
    text = path.read_text()
    path.chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        await caller(line, {"session": path}).auth.header()
    path.chmod(0o600)
    damaged = text.replace("sbxr_", "").replace(":", "")
    for content in ("", "[]", "{", "null", damaged, "x" * 70_000):
        path.write_text(content)
        with pytest.raises(StateError) as caught:
            await caller(line, {"session": path}).auth.header()
        assert "v4.public" not in str(caught.value)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        await caller(line, {"session": path}).auth.header()
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(StateError, match="plain file"):
        await caller(line, {"session": path}).auth.header()
    with pytest.raises(StateError, match="lock"):
        await caller(line, {"session": tmp_path / "no/session"}).auth.header()


async def test_a_session_needs_a_key_to_begin(line: Line, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="api_key"):
        await caller(line, {}).auth.begin_session(tmp_path / "session")
    unknown = {"api_key": new_secret(Kind.API_KEY)}
    with pytest.raises(AuthenticationError):
        await caller(line, unknown).auth.begin_session(tmp_path / "session")
    assert not (tmp_path / "session").exists()


SHARE = """
import sys, time, anyio
from pathlib import Path
from sandbox_sdk import Auth
from sandbox_sdk.auth.authority import Authority

async def main():
    state, path, at, turns = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), 20
    steady = 0.0
    authority = await Authority.open(state, clock=lambda: at + steady)

    async def post(path, form):
        answer = await authority.token(list(form.items()))
        print(form["grant_type"], answer.status, flush=True)
        return answer.status, dict(answer.body), None

    auth = Auth({"session": path}, monotonic=lambda: steady, clock=lambda: at + steady)
    auth.bind(post, "https://sandbox.example")
    for turn in range(turns):
        header = await auth.header()
        print("who", (await authority.authenticate(header)).subject, flush=True)
        steady += 481
    await authority.aclose()

anyio.run(main)
"""


@pytest.mark.slow
async def test_two_processes_share_a_session_and_neither_ends_it(
    line: Line, tmp_path: Path
) -> None:
    path = tmp_path / "session"
    await stored_session(line, path)
    arguments = [str(line.server.state), str(path), str(line.server.clock.now)]
    command = [sys.executable, "-c", SHARE, *arguments]
    ended: list[subprocess.CompletedProcess[bytes]] = []

    async def run() -> None:
        ended.append(await anyio.run_process(command, stderr=None))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)
    lines = [text for process in ended for text in process.stdout.decode().splitlines()]
    assert lines.count("who ann") == 40
    refreshes = [text for text in lines if text.startswith("refresh_token")]
    assert set(refreshes) == {"refresh_token 200"}
    (session,) = await line.server.authority.admin.sessions()
    assert session.revoked_at is None


# Where secrets may go


async def test_no_secret_is_in_a_repr_a_pickle_or_a_log(
    line: Line, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = await client_of(line)
    it = caller(line, config)
    header = await it.auth.header()
    assert header is not None
    shown = repr((it.auth, it.auth._credentials, it.auth._held)) + str(it.auth) + caplog.text
    assert str(config["client_secret"]) not in shown
    assert header.removeprefix("Bearer ") not in shown
    for leave in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            leave(it.auth)


async def test_without_a_server_no_token_can_be_asked_for() -> None:
    with pytest.raises(AuthenticationError, match="set endpoint"):
        await Auth({"client_id": "cli_1", "client_secret": CANARY}).header()


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("https://api.example.com", "https://api.example.com:443"),
        ("https://API.example.com:8443/base/", "https://api.example.com:8443/base"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("http://127.9.9.9:1", "http://127.9.9.9:1"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]:443"),
        ("unix:///run/sandbox sdk.sock".replace(" ", "-"), "unix:///run/sandbox-sdk.sock"),
    ],
)
def test_addresses_that_keep_credentials_safe_are_taken(url: str, known: str) -> None:
    assert check_endpoint(url).url == known
    assert check_endpoint(known).url == known


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "http://api.example.com",
        "http://localhost.example.com",
        "http://localhost@evil.example",
        "https://user:password@api.example.com",
        "http://2130706433",
        "http://0177.0.0.1",
        "http://0x7f.1",
        "http://127.1",
        "http://0.0.0.0",
        "http://[::ffff:127.0.0.1]",
        "http://[::]",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1\\@evil.example",
        "https://api.example.com?x=1",
        "https://api.example.com#x",
        "https://api.example.com:0x50",
        "https://api.example.com:99999",
        "https://api .example.com",
        "https://api.example.com\n",
        "https://ap%69.example.com",
        "https://ápi.example.com",
        "https://",
        "https://-api.example.com",
        "https://[fe80::1%25eth0]",
        "unix://run/x.sock",
        "unix:///",
        "unix:///run/",
        "unix:///" + "x" * 110,
    ],
)
def test_addresses_that_would_give_credentials_away_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^endpoint: "):
        check_endpoint(url)
    with pytest.raises(ConfigError):
        Auth({"token": "x.y"}).bind(Line.post, url)  # type: ignore[arg-type]
