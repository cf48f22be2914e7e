"""The commands ``server`` and ``admin``: made once, secrets shown once, and revoked for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from authorities import bearer
from click.testing import CliRunner, Result

from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.auth.principal import Principal
from sandbox_sdk.cli.app import app
from sandbox_sdk.crypto_utils.identities import WORKER, identity, parse_worker_keys
from sandbox_sdk.errors import AuthenticationError


def invoke(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(state), *arguments])


def told(state: Path, *arguments: str) -> Any:
    done = invoke(state, "--json", *arguments)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def who(state: Path, secret: str) -> Principal:
    async def ask() -> Principal:
        authority = await Authority.open(state)
        try:
            return await authority.authenticate(bearer(secret))
        finally:
            await authority.aclose()

    return anyio.run(ask)


def files(state: Path) -> dict[str, bytes]:
    secret = [*(state / "auth").glob("server.keys"), *(state / "keys").iterdir()]
    return {str(path): path.read_bytes() for path in secret}


def test_init_prints_what_clients_set_and_a_second_one_loses_nothing(tmp_path: Path) -> None:
    done = invoke(tmp_path, "server", "init")
    assert done.exit_code == 0, done.output
    lines = dict(
        line.strip().removeprefix("export ").split("=", 1)
        for line in done.stdout.splitlines()
        if "export " in line
    )
    assert lines["SANDBOX_ENDPOINT"] == f"unix://{tmp_path}/server/server.sock"
    key = lines["SANDBOX_API_KEY"]
    assert done.stdout.count(key) == 2  # by itself, and in the line
    (worker,) = parse_worker_keys(lines["SANDBOX_WORKER_KEY"].strip("'"))
    assert worker == identity(tmp_path / "keys", WORKER).public
    assert worker.fingerprint in done.stdout
    operator = who(tmp_path, key)
    assert (operator.tenant, operator.subject, operator.may("x")) == ("local", "operator", True)
    before = files(tmp_path)
    again = invoke(tmp_path, "server", "init")
    assert again.exit_code == 1
    assert "already" in again.stderr
    assert files(tmp_path) == before
    assert who(tmp_path, key) == operator
    assert len(told(tmp_path, "admin", "keys", "list")["keys"]) == 1


def test_the_lines_for_clients_name_the_address_that_is_given(tmp_path: Path) -> None:
    made = told(tmp_path, "server", "init", "--endpoint", "https://boxes.example:8443")
    assert made["endpoint"] == "https://boxes.example:8443"
    assert told(tmp_path, "server", "fingerprint") == {
        name: made[name] for name in ("worker_key", "fingerprint")
    }
    assert invoke(tmp_path, "server", "fingerprint").stdout.strip() == made["worker_key"]


def test_what_is_no_servers_is_told(tmp_path: Path) -> None:
    for words in (("admin", "tenants", "list"), ("server", "rotate")):
        done = invoke(tmp_path, *words)
        assert done.exit_code == 1
        assert "server.keys" in done.stderr


@pytest.fixture
def state(tmp_path: Path) -> Path:
    told(tmp_path, "server", "init")
    return tmp_path


def test_tenants_are_made_listed_and_shut_with_all_that_they_have(state: Path) -> None:
    assert invoke(state, "admin", "tenants", "create", "team").stdout == "created team\n"
    assert invoke(state, "admin", "tenants", "create", "team").exit_code == 1
    assert "tenant:" in invoke(state, "admin", "tenants", "create", "Team!").stderr
    key = told(state, "admin", "keys", "create", "--tenant", "team", "ann")["secret"]
    assert who(state, key).tenant == "team"
    assert invoke(state, "admin", "tenants", "disable", "team").stdout == "disabled team\n"
    with pytest.raises(AuthenticationError, match="revoked"):
        who(state, key)
    listed = told(state, "admin", "tenants", "list")["tenants"]
    assert [(each["id"], each["disabled_at"] is None) for each in listed] == [
        ("local", True),
        ("team", False),
    ]
    assert invoke(state, "admin", "keys", "create", "--tenant", "team", "ann").exit_code == 1


def test_a_key_is_shown_once_and_revoked(state: Path) -> None:
    words = ("admin", "keys", "create", "--grant", "reader", "--days", "2", "ann")
    done = invoke(state, *words)
    secret = done.stdout.splitlines()[-1].strip()
    reader = who(state, secret)
    assert (reader.subject, reader.scopes) == (
        "ann",
        frozenset({"sandboxes:read", "runs:read", "templates:read"}),
    )
    assert reader.expires_at is not None
    for listing in (("--json",), ()):
        shown = invoke(state, *listing, "admin", "keys", "list").stdout
        assert "ann" in shown
        assert secret not in shown
    (made,) = [each["id"] for each in told(state, "admin", "keys", "list")["keys"]][1:]
    wrong = invoke(state, "admin", "clients", "revoke", made)
    assert "begin with cli_" in wrong.stderr
    assert who(state, secret) == reader
    assert invoke(state, "admin", "keys", "revoke", made).stdout == f"revoked {made}\n"
    with pytest.raises(AuthenticationError, match="revoked"):
        who(state, secret)
    unknown = invoke(state, "admin", "keys", "revoke", "key_none")
    assert unknown.exit_code == 1


def test_faults_of_a_key_are_told_all_at_once(state: Path) -> None:
    done = invoke(state, "--json", "admin", "keys", "create", "--grant", "redaer", "a\nb")
    faults = json.loads(done.stdout)["error"]["faults"]
    assert [fault.partition(":")[0] for fault in faults] == ["subject", "grants"]
    assert "reader" in faults[1]


def test_clients_get_secrets_and_sessions_are_listed(state: Path) -> None:
    made = told(state, "admin", "clients", "create", "--tenant", "local", "batch")
    more = told(state, "admin", "clients", "add-secret", made["id"])
    assert more["id"] == made["id"]
    assert more["secret"] != made["secret"]
    assert [each["id"] for each in told(state, "admin", "clients", "list")["clients"]] == [
        made["id"]
    ]
    assert told(state, "admin", "clients", "list", "--tenant", "other")["clients"] == []
    assert told(state, "admin", "clients", "revoke", made["id"])["done"] == "revoke"
    assert told(state, "admin", "sessions", "list") == {"sessions": []}
    assert invoke(state, "admin", "sessions", "revoke", "ses_none").exit_code == 1


def test_the_signing_key_is_replaced(state: Path) -> None:
    one, two = (told(state, "server", "rotate", *more) for more in ((), ("--forget",)))
    assert one["signing_key"] != two["signing_key"]
