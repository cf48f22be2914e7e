"""Whatever is made of an access token by whoever has not its key, none is accepted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sdk.auth import access_tokens
from sandbox_sdk.auth.access_tokens import LEEWAY, LIFE, Claims
from sandbox_sdk.auth.server_keys import ServerKeys
from sandbox_sdk.crypto_utils import SignedToken, SigningKey, sign_token
from sandbox_sdk.errors import AuthenticationError

NOW = 1_900_000_000
KEYS = ServerKeys.generate(NOW - 1000)
THEIRS = ServerKeys.generate(NOW - 1000)


def claims(start: int = NOW, **changes: Any) -> Claims:
    told: dict[str, Any] = {
        "subject": "ann",
        "tenant": "acme",
        "scopes": frozenset({"runs:read"}),
        "credential": "ses_1",
        "issued_at": start,
        "expires_at": start + LIFE,
    }
    return Claims(**{**told, **changes})


GOOD = access_tokens.issue(KEYS, claims())


def refused(text: str, now: float = NOW, keys: ServerKeys = KEYS) -> str:
    with pytest.raises(AuthenticationError) as caught:
        access_tokens.read(keys, text, now)
    return caught.value.reason


def signed(
    payload: object,
    *,
    key: SigningKey = KEYS.signer,
    kid: str = "",
    implicit: bytes = b"sandbox-sdk-access@v1",
) -> str:
    """Sign anything with the server's own key, to look at what comes after the signature."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    footer = json.dumps({"kid": kid or key.id}, separators=(",", ":")).encode()
    return sign_token(key, text, footer=footer, implicit=implicit)


def payload(**changes: object) -> dict[str, object]:
    said: dict[str, object] = json.loads(SignedToken.parse(GOOD).payload)
    said.update(changes)
    return {name: value for name, value in said.items() if value is not ...}


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@given(
    st.text(min_size=1),
    st.text(min_size=1),
    st.frozensets(st.text()),
    st.text(min_size=1),
    st.integers(1, LIFE),
)
def test_every_token_is_read_back(
    subject: str, tenant: str, scopes: frozenset[str], credential: str, life: int
) -> None:
    said = claims(
        subject=subject,
        tenant=tenant,
        scopes=scopes,
        credential=credential,
        expires_at=NOW + life,
    )
    if not all(text.isprintable() for text in (subject, tenant, credential, *scopes)):
        return
    text = access_tokens.issue(KEYS, said)
    if len(text) <= 4096:
        assert access_tokens.read(KEYS, text, NOW) == said


def test_a_token_lives_from_its_beginning_to_its_end() -> None:
    for good in (NOW - LEEWAY, NOW, NOW + LIFE - 0.001):
        assert access_tokens.read(KEYS, GOOD, good) == access_tokens.read(KEYS, GOOD, NOW)
    assert refused(GOOD, NOW + LIFE) == "expired"
    assert refused(GOOD, NOW + 86400) == "expired"
    assert refused(GOOD, NOW - LEEWAY - 1) == "invalid"


def test_the_helpers_own_form_is_accepted_so_that_the_refusals_below_mean_something() -> None:
    assert access_tokens.read(KEYS, signed(payload()), NOW).subject == "ann"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": THEIRS.issuer},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["sandbox-sdk"]},
        {"sub": ""},
        {"tenant": ""},
        {"tenant": 1},
        {"scopes": "*"},
        {"scopes": [1]},
        {"scopes": {"*": 1}},
        {"sid": None},
        {"jti": ...},
        {"exp": ...},
        {"nbf": ...},
        {"iat": ...},
        {"admin": True},
        {"exp": NOW + 10},
        {"exp": at(NOW + LIFE + 1)},
        {"exp": at(NOW)},
        {"exp": at(NOW - 1)},
        {"exp": at(NOW + LIFE).replace("+00:00", "Z")},
        {"exp": at(NOW + LIFE).replace("+00:00", "+00:00:00.5")},
        {"exp": "9999-99-99T99:99:99+00:00"},
        {"exp": "２０３０-01-01T00:00:00+00:00"},
        {"nbf": at(NOW - 1)},
        {"iat": "x"},
    ],
)
def test_claims_that_no_token_of_ours_has_are_refused_even_when_signed(
    changes: dict[str, object],
) -> None:
    assert refused(signed(payload(**changes))) == "invalid"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff",
        b"[" * 1000,
        json.dumps(payload()).encode().replace(b'"sub"', b'"sub": "root", "sub"'),
    ],
)
def test_payloads_that_are_no_claims_are_refused_even_when_signed(body: bytes) -> None:
    text = signed(body) if body else GOOD[:-1]
    assert refused(text) == "invalid"


def test_a_key_of_another_server_or_purpose_and_a_swapped_key_id_are_refused() -> None:
    other = SigningKey.generate()
    assert refused(access_tokens.issue(THEIRS, claims())) == "invalid"
    assert refused(signed(payload(), key=other)) == "invalid"
    assert refused(signed(payload(), key=other, kid=KEYS.signer.id)) == "invalid"
    assert refused(signed(payload(), implicit=b"")) == "invalid"
    assert refused(signed(payload(), implicit=b"another@v1")) == "invalid"
    body = GOOD.rpartition(".")[0]
    assert refused(body) == "invalid"
    swapped = access_tokens.issue(THEIRS, claims()).rpartition(".")[2]
    assert refused(f"{body}.{swapped}") == "invalid"
    key = KEYS.signer
    for odd in (b"", b"{}", b'{"kid":1}', b'{"kid":"' + b"a" * 3000 + b'"}', b'{"kid": "x"}'):
        text = sign_token(key, b"{}", footer=odd, implicit=b"sandbox-sdk-access@v1")
        assert refused(text) == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("v4.public.", "v3.public."),
        GOOD.replace("v4.public.", "v2.public."),
        GOOD.replace("v4.public.", "v4.local."),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.AAAA",
        GOOD + "A" * 100_000,
    ],
)
def test_other_kinds_of_tokens_are_refused(text: str) -> None:
    assert refused(text) == "invalid"


def test_after_a_rotation_old_tokens_live_out_their_time_and_old_keys_sign_nothing_new() -> None:
    rotated = KEYS.rotated(NOW + 10, keep=LIFE)
    assert access_tokens.read(rotated, GOOD, NOW + 20) == access_tokens.read(KEYS, GOOD, NOW)
    new = access_tokens.issue(rotated, claims(NOW + 20))
    assert access_tokens.read(rotated, new, NOW + 20).issued_at == NOW + 20
    stolen = access_tokens.issue(KEYS, claims(NOW + 20))  # signed with the old key
    assert refused(stolen, NOW + 20, rotated) == "invalid"
    assert refused(GOOD, NOW + 20, KEYS.rotated(NOW + 10, keep=0)) == "invalid"
    later = rotated.rotated(NOW + 10 + LIFE + 1, keep=LIFE)
    assert len(later.signers) == 2


def mutate(dice: random.Random, others: list[str]) -> tuple[str, float]:
    """Return a token that is not the server's, or no longer good, and the time it comes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    place = dice.randrange(len(GOOD))
    other = dice.choice(others)
    kinds: list[Callable[[], str]] = [
        lambda: GOOD[:place] + dice.choice(letters) + GOOD[place + 1 :],
        lambda: GOOD[:place],
        lambda: GOOD[place:],
        lambda: GOOD[:place] + dice.choice(letters) + GOOD[place:],
        lambda: GOOD[:place] + other[place:],
        lambda: other[:place] + GOOD[place:],
        lambda: access_tokens.issue(THEIRS, claims()),
        lambda: signed(payload(sub="root"), key=THEIRS.signer, kid=KEYS.signer.id),
        lambda: signed(payload(exp=at(NOW + LIFE * dice.randrange(2, 99)))),
        lambda: "".join(dice.choices(letters, k=dice.randrange(1, 700))),
    ]
    choice = dice.randrange(len(kinds) + 1)
    if choice == len(kinds):
        return GOOD, NOW + LIFE + dice.random() * 1e6
    return kinds[choice](), NOW


def accepted(count: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    others = [access_tokens.issue(KEYS, claims(subject=f"s{n}")) for n in range(20)]
    found: list[str] = []
    for _ in range(count):
        text, now = mutate(dice, others)
        try:
            access_tokens.read(KEYS, text, now)
        except AuthenticationError:
            continue
        # A mutation may change nothing, or put a whole other one in its place.
        if now != NOW or text not in (GOOD, *others):
            found.append(text)
    return found


def test_no_forged_or_expired_token_is_accepted() -> None:
    assert accepted(5_000, random.randrange(2**32)) == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_forged_or_expired_token_of_100_000_is_accepted() -> None:
    seed = random.randrange(2**32)
    assert accepted(100_000, seed) == [], seed
