"""Refresh tokens in any order and at any time: what a model of them says is what comes out."""

from __future__ import annotations

import sqlite3

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sandbox_sdk.auth import credential_rows, session_rows, tables
from sandbox_sdk.auth.records import KeyInfo, SessionInfo, TenantInfo
from sandbox_sdk.auth.secret_texts import Kind, Pepper, digest, new_secret
from sandbox_sdk.auth.session_rows import IDLE, LONGEST, REPEAT

START = 1_900_000_000.0
PEPPER = Pepper.generate()


class Families(RuleBasedStateMachine):
    """Sessions whose tokens are presented by owners, thieves, and owners who lost an answer."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        tables.migrate(self.connection)
        # Session -> its tokens in order, when each was first used, and whether it was revoked.
        self.chains: dict[str, list[str]] = {}
        self.used: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.began: dict[str, float] = {}
        self.revoked: set[str] = set()
        self.revocations = 0

    @initialize()
    def make_key(self) -> None:
        credential_rows.insert_tenant(self.connection, TenantInfo(id="acme", created_at=START))
        key = KeyInfo(id="key_1", tenant="acme", subject="ann", grants=("user",), created_at=START)
        credential_rows.insert_key(self.connection, key, "0")

    @rule(target=tokens)
    def begin(self) -> tuple[str, str]:
        token, name = new_secret(Kind.REFRESH_TOKEN), f"ses_{len(self.chains)}"
        info = SessionInfo(
            id=name,
            tenant="acme",
            subject="ann",
            grants=("runs:read",),
            key="key_1",
            created_at=self.now,
            expires_at=self.now + LONGEST,
        )
        kept = digest(PEPPER, Kind.REFRESH_TOKEN, token)
        assert session_rows.insert_session(self.connection, info, kept)
        self.chains[name] = [token]
        self.began[name] = self.last[name] = self.now
        return name, token

    @rule(target=tokens, token=tokens)
    def present(self, token: tuple[str, str]) -> tuple[str, str]:
        name, text = token
        found = session_rows.refresh(self.connection, PEPPER, text, self.now)
        chain = self.chains[name]
        place = chain.index(text)
        if name in self.revoked:
            assert found.outcome == "revoked"
        elif self.now >= min(self.last[name] + IDLE, self.began[name] + LONGEST):
            assert found.outcome == "expired"
        elif place == len(chain) - 1:
            assert found.outcome == "good"
            assert found.refresh_token is not None
            assert found.refresh_token not in chain
            chain.append(found.refresh_token)
            self.used[text] = self.last[name] = self.now
        elif place == len(chain) - 2 and self.now <= self.used[text] + REPEAT:
            assert (found.outcome, found.refresh_token) == ("good", chain[-1])
        else:
            assert found.outcome == "reused"
            self.revoked.add(name)
            self.revocations += 1
        return name, found.refresh_token or text

    @rule(seconds=st.sampled_from([0.0, 1.0, 29.0, REPEAT, 31.0, 3600.0, IDLE - 1, IDLE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def present_a_strangers(self) -> None:
        stranger = new_secret(Kind.REFRESH_TOKEN)
        found = session_rows.refresh(self.connection, PEPPER, stranger, self.now)
        assert found.outcome == "unknown"

    @invariant()
    def only_thefts_revoke(self) -> None:
        if not self.chains:
            return
        listed = session_rows.list_sessions(self.connection, tenant="acme")
        revoked = {info.id for info in listed if info.revoked_at is not None}
        assert revoked == self.revoked & {info.id for info in listed}
        assert tables.revocations(self.connection) == self.revocations

    def teardown(self) -> None:
        self.connection.close()


Families.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestFamilies = Families.TestCase
