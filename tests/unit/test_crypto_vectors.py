"""What others published: our calls of libsodium give the same bytes, and refuse the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox_sdk.crypto_utils import MasterKey, PrivateKey, sodium, unseal_with
from sandbox_sdk.crypto_utils.passphrases import Derivation, Passphrase, derive
from sandbox_sdk.errors import IntegrityError

DATA = Path(__file__).resolve().parents[1] / "data"


def rows(name: str) -> list[dict[str, Any]]:
    found = json.loads((DATA / name).read_text())
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def test_xchacha20_poly1305_agrees_with_wycheproof() -> None:
    vectors = rows("wycheproof_xchacha20_poly1305.json")
    assert len(vectors) == 315
    for vector in vectors:
        key, nonce, associated, message, sealed, tag = (
            bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        if vector["result"] == "valid":
            assert sodium.aead_encrypt(message, associated, nonce, key) == sealed + tag
            assert sodium.aead_decrypt(sealed + tag, associated, nonce, key) == message
        else:
            with pytest.raises(IntegrityError):
                sodium.aead_decrypt(sealed + tag, associated, nonce, key)


def test_ed25519_agrees_with_wycheproof() -> None:
    checked = 0
    for vector in rows("wycheproof_ed25519.json"):
        public, message, signature = (bytes.fromhex(vector[name]) for name in ("pk", "msg", "sig"))
        found = sodium.verify(message, signature, public)
        if vector["result"] != "acceptable":  # which may be taken or refused
            assert found == (vector["result"] == "valid"), vector
            checked += 1
    assert checked >= 150


def test_secretstream_agrees_with_libsodium() -> None:
    streams = json.loads((DATA / "pynacl_secretstream.json").read_text())
    opened = 0
    for stream in streams:
        pull = sodium.StreamPull(bytes.fromhex(stream["header"]), bytes.fromhex(stream["key"]))
        for chunk in stream["chunks"]:
            sealed, associated = bytes.fromhex(chunk["ciphertext"]), bytes.fromhex(chunk["ad"])
            if chunk["tag"] not in (0, 3):  # a mark that we neither write nor take
                with pytest.raises(IntegrityError, match="mark"):
                    pull.pull(sealed, associated)
                break
            message, final = pull.pull(sealed, associated)
            assert (message.hex(), final) == (chunk["message"], chunk["tag"] == 3)
            opened += 1
    assert opened == 4


def test_subkeys_are_those_of_libsodium() -> None:
    """From libsodium's ``kdf.exp``: the subkey 32 of 32 bytes."""
    assert MasterKey(bytes(range(32))).subkey("KDF test", 32).reveal().hex() == (
        "154b291f11196737f8b7f491e4ca11764e0227d34f94295408a869f007aa8618"
    )


def test_sealed_boxes_are_those_of_libsodium() -> None:
    """From libsodium's reference vectors of ``crypto_seal_box``."""
    key = PrivateKey(
        bytes.fromhex("1bcdb90ac2996d3e5598a404fd8753bae482ec821a64e306e15416228bae7212")
    )
    assert key.public.data.hex() == (
        "6415b1fe7bb4dc602097f607249df89eb59cf2e75be1cb74abfc0664dc0f0a3d"
    )
    sealed = bytes.fromhex(
        "dbe788125ef86d2d4049feb371cf25e2a52a0d71505eeb2ebff526e859e6495c"
        "3c278fa7ba88e41c92c711a0ddbd3bdf09"
    )
    assert unseal_with(key, sealed) == b"\xeb"


def test_passphrases_become_what_the_reference_program_of_argon2_says() -> None:
    passphrase = Passphrase.parse("six words that nobody would guess")
    key = derive(passphrase, Derivation(salt=bytes(range(16))))
    assert key.reveal().hex() == "a28729dbc7dc33c9939b58d25935bab03da48d0685b08cc66d12dd0d2474ae5f"
