"""``docs/auth.md`` says what the code does: forms, figures, roles and scopes."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from test_docs import PAGES, rows, words

from sandbox_sdk import Auth
from sandbox_sdk.auth import access_tokens, limiter, session_rows
from sandbox_sdk.auth.administration import Administration
from sandbox_sdk.auth.credentials import Method
from sandbox_sdk.auth.exchange import SESSION_GRANT
from sandbox_sdk.auth.scopes import ROLES, SCOPES
from sandbox_sdk.auth.secret_texts import Kind

PAGE = " ".join(PAGES["auth"].split())


def test_the_forms_stand_in_the_order_in_which_they_are_used() -> None:
    table = list(rows("auth", "## The caller's side"))
    assert [name for name in table if name in get_args(Method)] == list(get_args(Method))


def test_every_role_and_scope_is_documented_with_what_it_means() -> None:
    table = rows("auth", "### What callers may do")
    for scope, meaning in SCOPES.items():
        assert table[scope][0] == meaning
    for role, scopes in ROLES.items():
        assert set(re.findall(r"`([^`]+)`", table[role][0])) == scopes
    assert table.keys() - {"role", "scope", "---"} == SCOPES.keys() | ROLES.keys()


def test_every_kind_of_secret_and_grant_is_documented() -> None:
    for kind in Kind:
        assert f"`{kind}...`" in PAGE
    for grant in ("client_credentials", "refresh_token", SESSION_GRANT):
        assert f"`{grant}`" in PAGE


@pytest.mark.parametrize(
    "said",
    [
        f"| {access_tokens.LIFE} s |",
        f"successor for {session_rows.REPEAT:.0f} s",
        f"end {session_rows.LONGEST / 86400:.0f} days after",
        f"after {session_rows.IDLE / 3600:.0f} hours without",
        f"{limiter.BURST} at once, then one a second",
    ],
)
def test_figures_are_those_of_the_code(said: str) -> None:
    assert said in PAGE


def test_what_can_be_called_is_named() -> None:
    named = words("auth")
    calls = {name for name in vars(Auth) if not name.startswith("_")}
    assert calls - {"method", "skew", "from_settings"} <= named
    makes = ("create_", "add_", "disable_", "revoke", "rotate_")
    assert {name for name in vars(Administration) if name.startswith(makes)} <= named
