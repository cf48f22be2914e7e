"""Signed tokens are PASETO v4.public: the standard's vectors and other libraries agree."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pyseto
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey

from sandbox_sdk.crypto_utils import SignedToken, SigningKey, VerifyKey, sign_token
from sandbox_sdk.crypto_utils.paseto import LARGEST
from sandbox_sdk.errors import IntegrityError

DATA = Path(__file__).resolve().parents[1] / "data" / "paseto_v4_public.json"
KEY = SigningKey(bytes(range(32)))  # the same in all processes that run these tests


def test_the_standards_vectors_are_reproduced_and_those_that_must_fail_do() -> None:
    found: dict[str, Any] = json.loads(DATA.read_text())
    key = SigningKey(bytes.fromhex(found["secret-key-seed"]))
    assert key.public == VerifyKey(bytes.fromhex(found["public-key"]))
    refused = 0
    for row in found["rows"]:
        name, token, payload, footer, implicit = row
        try:
            read = SignedToken.parse(token)
        except IntegrityError:
            assert payload is None, name
            refused += 1
            continue
        good = read.verify(key.public, implicit=implicit.encode())
        assert good == (payload is not None), name
        if good:
            assert (read.payload.decode(), read.footer.decode()) == (payload, footer)
            again = sign_token(
                key, payload.encode(), footer=footer.encode(), implicit=implicit.encode()
            )
            assert again == token, name
        refused += not good
    assert (len(found["rows"]), refused) == (6, 3)


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=60), st.binary(max_size=60))
def test_pyseto_reads_our_tokens_and_we_read_its(
    payload: bytes, footer: bytes, implicit: bytes
) -> None:
    secret = pyseto.Key.from_asymmetric_key_params(4, d=KEY.reveal())
    public = pyseto.Key.from_asymmetric_key_params(4, x=KEY.public.data)
    ours = sign_token(KEY, payload, footer=footer, implicit=implicit)
    read = pyseto.decode(public, ours, implicit_assertion=implicit)
    assert (read.payload, read.footer) == (payload, footer)
    theirs = pyseto.encode(secret, payload, footer=footer, implicit_assertion=implicit).decode()
    assert theirs == ours
    with pytest.raises(pyseto.VerifyError):
        pyseto.decode(public, ours, implicit_assertion=implicit + b"x")


@given(st.binary(min_size=1, max_size=200))
def test_joserfc_makes_and_checks_the_same_signatures(payload: bytes) -> None:
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", **jwk(KEY)})
    text = jws.serialize_compact({"alg": "Ed25519"}, payload, key, algorithms=["Ed25519"])
    signed, _, signature = text.rpartition(".")
    assert KEY.public.verify(signed.encode(), decoded(signature))
    ours = f"{signed}.{encoded(KEY.sign(signed.encode()))}"
    assert ours == text
    assert jws.deserialize_compact(ours, key, algorithms=["Ed25519"]).payload == payload


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=60), st.binary(max_size=60))
def test_tokens_are_read_back_with_their_implicit_part_only(
    payload: bytes, footer: bytes, implicit: bytes
) -> None:
    read = SignedToken.parse(sign_token(KEY, payload, footer=footer, implicit=implicit))
    assert (read.payload, read.footer) == (payload, footer)
    assert read.verify(KEY.public, implicit=implicit)
    assert not read.verify(KEY.public, implicit=implicit + b"\0")
    assert not read.verify(SigningKey.generate().public, implicit=implicit)


@given(st.binary(min_size=1, max_size=30), st.binary(max_size=30))
def test_bytes_do_not_move_between_payload_footer_and_implicit_part(a: bytes, b: bytes) -> None:
    first = SignedToken.parse(sign_token(KEY, a, footer=b))
    moved = SignedToken(payload=a + b, footer=b"", signature=first.signature)
    assert moved.verify(KEY.public) == (b == b"")
    assert not SignedToken(payload=a, footer=b"", signature=first.signature).verify(
        KEY.public, implicit=b + b"!"
    )


GOOD = sign_token(KEY, b"{}", footer=b"f")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v4.public.",
        "v4.public..",
        GOOD + ".",
        GOOD + "." + "QQ",
        GOOD + "=",
        GOOD + "\n",
        " " + GOOD,
        GOOD.replace("v4.public", "v4.local"),
        GOOD.replace("v4.public", "v3.public"),
        GOOD.replace("v4.public", "V4.public"),
        GOOD.rpartition(".")[0] + ".",
        GOOD[:-1] + chr(ord(GOOD[-1]) + 1),  # the bits to spare of the last letter
        GOOD + "A" * LARGEST,
        GOOD + "é",
        "eyJhbGciOiJub25lIn0.e30.",
        "\0",
    ],
)
def test_what_is_no_such_token_is_refused_before_any_key_is_used(text: str) -> None:
    with pytest.raises(IntegrityError, match=r"no v4\.public token"):
        SignedToken.parse(text)


def test_a_token_hides_its_payload_and_signature_in_its_repr() -> None:
    read = SignedToken.parse(sign_token(KEY, b"canary", footer=b"f"))
    assert "canary" not in repr(read)


def jwk(key: SigningKey) -> dict[str, str]:
    return {"d": encoded(key.reveal()), "x": encoded(key.public.data)}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
