"""A real server whose callers prove themselves: set up, used and locked by the command line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.streams.tls
import anyio.to_thread
import pytest
from certificates import Certificates
from served import program

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import AuthenticationError

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(120)]


async def told(state: Path, *words: str, **environment: str) -> Any:
    """Run a command and return its JSON."""
    command = [sys.executable, "-m", "sandbox_sdk", "--state-dir", str(state), "--json", *words]
    done = await anyio.run_process(command, env={**os.environ, **environment})
    return json.loads(done.stdout)


async def test_every_form_works_at_tcp_and_at_a_unix_socket(tmp_path: Path) -> None:
    state = tmp_path / "server"
    operator = await told(state, "server", "init")
    options = ("--host", "127.0.0.1", "--port", "0", "--allow", "host-template")
    async with program(state, *options) as (_, endpoints):
        assert [endpoint.partition(":")[0] for endpoint in endpoints] == ["http", "unix"]
        key = await told(state, "admin", "keys", "create", "ann")
        client = await told(state, "admin", "clients", "create", "batch")
        for number, endpoint in enumerate(endpoints):
            file = tmp_path / f"session{number}"
            where = {"SANDBOX_ENDPOINT": endpoint}
            here = tmp_path / "client"
            begun = await told(here, "login", str(file), SANDBOX_API_KEY=key["secret"], **where)
            forms: dict[str, dict[str, object]] = {
                "token": {"token": json.loads(file.read_text())["access_token"]},
                "api_key": {"api_key": operator["api_key"]},
                "client": {"client_id": client["id"], "client_secret": client["secret"]},
                "session": {"session": str(file)},
            }
            for method, form in forms.items():
                async with AsyncSandboxClient(form, endpoint=endpoint, state_dir=here) as caller:
                    status = await caller.validate_auth()
                    assert (status.authenticated, status.method) == (True, method)
                    async with await caller.create_sandbox(method) as sandbox:
                        assert (await sandbox.run_command("echo used")).stdout == "used\n"
            listed = (await told(state, "admin", "sessions", "list"))["sessions"]
            assert begun["session"] in [each["id"] for each in listed if not each["revoked_at"]]
            assert await told(here, "logout", str(file), **where) == {"session": begun["session"]}
            assert not file.exists()
            copied = AsyncSandboxClient(forms["token"], endpoint=endpoint, state_dir=here)
            with pytest.raises(AuthenticationError) as refused:
                await copied.validate_auth()
            assert refused.value.reason == "revoked"
            await copied.aclose()
        nobody = AsyncSandboxClient(endpoint=endpoints[0], state_dir=tmp_path / "client")
        with pytest.raises(AuthenticationError, match="SANDBOX_API_KEY"):
            await nobody.validate_auth()
        await nobody.aclose()


async def presented(port: int) -> str:
    """The digest of the certificate that a server presents."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with await anyio.connect_tcp("127.0.0.1", port, ssl_context=trusting) as stream:
        peer = stream.extra(anyio.streams.tls.TLSAttribute.peer_certificate_binary)
        return hashlib.sha256(peer or b"").hexdigest()


async def test_sighup_reads_the_certificate_anew(tmp_path: Path) -> None:
    state = tmp_path / "server"
    key = (await told(state, "server", "init"))["api_key"]
    one, two = (Certificates.make(tmp_path / name) for name in ("one", "two"))
    options = ("--host", "127.0.0.1", "--port", "0", "--tls-cert", str(one.chain))
    async with program(state, *options, "--tls-key", str(one.key)) as (server, endpoints):
        assert endpoints[0].startswith("https://")
        port = int(endpoints[0].rpartition(":")[2])
        before = await presented(port)
        for new, old in ((two.chain, one.chain), (two.key, one.key)):
            await anyio.to_thread.run_sync(shutil.copy, new, old)
        assert await presented(port) == before
        server.send_signal(signal.SIGHUP)
        with anyio.fail_after(20):
            while (after := await presented(port)) == before:
                await anyio.lowlevel.checkpoint()
        chain = ssl.PEM_cert_to_DER_cert(two.chain.read_text())
        assert after == hashlib.sha256(chain).hexdigest()
        config: dict[str, object] = {"tls": {"ca_file": str(two.ca)}}
        async with AsyncSandboxClient(
            {"api_key": key}, endpoint=endpoints[0], config=config, state_dir=tmp_path / "client"
        ) as client:
            assert (await client.validate_auth()).subject == "operator"
