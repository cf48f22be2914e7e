"""Where a server listens, and to whom."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest
from certificates import Certificates
from served import Keys

from sandbox_sdk.auth.principal import LOCAL_TENANT
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.config import Settings
from sandbox_sdk.errors import AuthenticationError, ConfigError, ServerUnavailable, StateError
from sandbox_sdk.server.principals import Peer, Peers
from sandbox_sdk.server.serving import Listener, serve
from sandbox_sdk.server.settings import ServerSettings
from sandbox_sdk.server.sockets import listen_tcp, listen_unix, reload_tls, tls_context


def test_a_unix_socket_is_its_users_alone(tmp_path: Path) -> None:
    path = tmp_path / "made" / "server.sock"
    with listen_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with pytest.raises(ConfigError, match=r"listens at .* already"):
            listen_unix(path)
    with listen_unix(path):  # what is left of one that ended is replaced
        pass
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o755)
    with pytest.raises(ConfigError, match="others may enter"):
        listen_unix(open_folder / "server.sock")
    (tmp_path / "made" / "file").write_text("kept")
    with pytest.raises(ConfigError, match="no socket"):
        listen_unix(tmp_path / "made" / "file")
    assert (tmp_path / "made" / "file").read_text() == "kept"
    with pytest.raises(StateError):
        listen_unix(tmp_path / "made" / ("x" * 200))


def test_others_reach_tcp_only_with_tls() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match="--tls-cert"):
            listen_tcp(host, 0, is_protected=False)
    with pytest.raises(ConfigError, match="IP address"):
        listen_tcp("localhost", 0, is_protected=False)
    with (
        listen_tcp("127.0.0.1", 0, is_protected=False) as first,
        pytest.raises(StateError, match="another port"),
    ):
        listen_tcp("127.0.0.1", first.getsockname()[1], is_protected=False)
    with listen_tcp("0.0.0.0", 0, is_protected=True):
        pass


@pytest.mark.anyio
async def test_tcp_is_refused_where_nothing_tells_who_calls(tmp_path: Path) -> None:
    with listen_tcp("127.0.0.1", 0, is_protected=False) as listening:
        settings = Settings.load(state_dir=tmp_path, config={})
        with pytest.raises(ConfigError, match="who calls"):
            async with serve(settings, ServerSettings(), [Listener(socket=listening)]):
                raise AssertionError("it served")


def test_the_kernel_says_who_is_at_a_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = socket.socketpair()
    with one, two:
        me = Peers().identify(one)
        assert (me.tenant, me.method, me.subject) == (LOCAL_TENANT, "peer", f"uid {os.getuid()}")
        assert me.may("anything")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    known = Peers({1001: Peer(tenant="team", scopes=frozenset({"sandboxes:read"}))})

    def called_by(uid: int) -> socket.socket:
        word = struct.pack("3i", 7, uid, uid)
        return SimpleNamespace(getsockopt=lambda *_: word)  # type: ignore[return-value]

    assert {known.identify(called_by(uid)).tenant for uid in (0, 1000)} == {LOCAL_TENANT}
    other = known.identify(called_by(1001))
    assert (other.tenant, other.may("sandboxes:write")) == ("team", False)
    with pytest.raises(AuthenticationError, match="uid 1002"):
        known.identify(called_by(1002))


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_tls_is_spoken_with_the_certificate_of_the_files(tmp_path: Path) -> None:
    one, two = (Certificates.make(tmp_path / name) for name in ("one", "two"))
    listening = listen_tcp("127.0.0.1", 0, is_protected=True)
    endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
    tls = tls_context(one.chain, one.key)
    settings = Settings.load(state_dir=tmp_path / "server", config={})
    offered = ServerSettings(drain_seconds=0.1)

    def client(*, trusted: Path | None) -> AsyncSandboxClient:
        config: dict[str, object] = {"tls": {"ca_file": str(trusted)}} if trusted else {}
        keys = {"api_key": "local"}
        folder = tmp_path / "client"
        return AsyncSandboxClient(keys, config=config, endpoint=endpoint, state_dir=folder)

    async with serve(
        settings, offered, [Listener(socket=listening, tls=tls)], authenticator=Keys()
    ):
        async with client(trusted=one.ca) as near, await near.create_sandbox("x") as sandbox:
            assert (await sandbox.run_command("echo sealed on the way")).ok
        async with client(trusted=None) as strange:
            with pytest.raises(ServerUnavailable, match="certificate"):
                await strange.validate_auth()
        reload_tls(tls, two.chain, two.key)
        async with client(trusted=two.ca) as again:
            assert (await again.validate_auth()).method == "api_key"
        for chain, key in ((one.chain, two.key), (two.chain, tmp_path / "none.key")):
            with pytest.raises(ConfigError, match="cannot be used"):
                reload_tls(tls, chain, key)
        async with client(trusted=two.ca) as still:
            assert (await still.validate_auth()).authenticated
        async with client(trusted=tmp_path / "none.pem") as wrong:
            with pytest.raises(ConfigError, match=r"tls\.ca_file"):
                await wrong.validate_auth()


@pytest.mark.anyio
async def test_a_loop_that_forks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type("Loop", (), {"__module__": "uvloop.loop"})()
    settings = Settings.load(state_dir=tmp_path, config={})
    with monkeypatch.context() as patch:
        patch.setattr("sandbox_sdk.server.serving.asyncio.get_running_loop", lambda: other)
        starting = serve(settings, ServerSettings(), [])
        with pytest.raises(ConfigError, match="uvloop"):
            await starting.__aenter__()
