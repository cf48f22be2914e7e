"""Keys: what shows them, what they are written as, and which are refused."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from sandbox_sdk.crypto_utils import (
    Commitment,
    DataKey,
    MasterKey,
    Passphrase,
    PrivateKey,
    PublicKey,
    SigningKey,
    Unlock,
    VerifyKey,
    check_encryption_key,
    keyed_digest,
    seal_to,
    sodium,
    unseal_with,
)
from sandbox_sdk.crypto_utils.masters import write_key_file
from sandbox_sdk.crypto_utils.passphrases import Derivation, derive
from sandbox_sdk.crypto_utils.secret import Secret
from sandbox_sdk.errors import ConfigError, IntegrityError

HUSH = b"hush-hush-hush-hush-hush-hush-32"
PHRASE = "correct horse battery staple"
SECRETS = [
    MasterKey(HUSH),
    DataKey(HUSH),
    SigningKey(HUSH),
    PrivateKey(HUSH),
    MasterKey(HUSH).subkey("wrap"),
    Passphrase.parse("hush, and nobody will know"),
]


@pytest.mark.parametrize("key", SECRETS, ids=lambda key: type(key).__name__)
def test_a_key_is_shown_by_nothing(key: Secret, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("x").warning("with %s %r", key, [key])
    shown = [repr(key), str(key), f"{key}", repr({"k": (key,)}), caplog.text]
    try:
        raise ValueError(key)
    except ValueError:
        shown.append(traceback.format_exc())
    for text in shown:
        assert key.id in text
        for part in (b"hush", key.reveal()[:4]):
            assert part.decode("latin-1") not in text
            assert part.hex() not in text
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize("key", SECRETS, ids=lambda key: type(key).__name__)
def test_a_key_leaves_the_process_by_no_pickle(key: Secret) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps([key], protocol)
    with pytest.raises(TypeError):
        json.dumps(key)
    with pytest.raises(TypeError, match="cannot be pickled"):
        key.__getstate__()
    assert copy.copy(key) is key
    assert copy.deepcopy([key])[0] is key


def test_keys_of_different_kinds_are_different() -> None:
    assert DataKey(HUSH) == DataKey(HUSH)
    assert DataKey(HUSH) != MasterKey(HUSH)
    assert DataKey(HUSH) != DataKey(HUSH[::-1])
    assert len({DataKey(HUSH), DataKey(HUSH), MasterKey(HUSH)}) == 2
    with pytest.raises(ConfigError, match="32 bytes, not 3"):
        DataKey(b"abc")


def test_subkeys_of_one_master_are_unrelated() -> None:
    master = MasterKey.generate()
    subkeys = {master.subkey("wrap"), master.subkey("token"), master.subkey("wrap", 1)}
    assert len(subkeys) == 3
    assert master.subkey("wrap") == master.subkey("wrap")
    with pytest.raises(ValueError, match="8 bytes"):
        master.subkey("much too long")


def test_the_text_of_a_key_is_read_back() -> None:
    key = MasterKey.generate()
    text = key.to_text()
    assert text.startswith("sbxk1_")
    assert MasterKey.parse(f"  {text}\n") == key
    assert MasterKey.parse(text.upper()) == key


def test_every_changed_letter_of_a_key_is_noticed() -> None:
    text = MasterKey(HUSH).to_text()
    letters = "abcdefghijklmnopqrstuvwxyz234567_"
    for at in range(len("sbxk1_"), len(text)):
        for letter in letters:
            if letter != text[at]:
                with pytest.raises(ConfigError, match="checksum") as caught:
                    check_encryption_key(text[:at] + letter + text[at + 1 :])
                assert text[10:30] not in str(caught.value)
    for cut in (text[:-1], text + "a", text[:20], "sbxk1_", "sbxk1__"):
        with pytest.raises(ConfigError, match="checksum"):
            check_encryption_key(cut)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("your-encryption-key", "placeholder"),
        ("<put your key here>", "placeholder"),
        ("CHANGE_ME_PLEASE", "placeholder"),
        ("short", "fewer than 12"),
        ("  padded      ", "fewer than 12"),
        ("aaaaaaaaaaaaaaaaaa", "different"),
        ("hunter2hunter2", "repeated"),
        ("Password-12345!", "everybody tries"),
        ("my secret password", "everybody tries"),
        ("abcdefghijklmnop", "row"),
        ("0987654321098765", "row"),
    ],
)
def test_what_can_be_guessed_is_no_passphrase(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        check_encryption_key(text)
    assert "sandbox-sdk keys create" in str(caught.value)
    assert text not in str(caught.value)
    with pytest.raises(ConfigError, match=why):
        Unlock.parse(text)


def test_a_passphrase_is_the_same_however_its_letters_are_encoded() -> None:
    assert Passphrase.parse("café au lait, zwölf") == Passphrase.parse(
        " cafe\u0301 au lait, zwo\u0308lf\n"
    )


def test_a_passphrase_is_derived_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    real = sodium.argon2id

    def counted(text: bytes, salt: bytes, operations: int, memory_bytes: int) -> bytes:
        calls.append((operations, memory_bytes))
        return real(text, salt, operations, memory_bytes)

    monkeypatch.setattr(sodium, "argon2id", counted)
    derivation = Derivation.generate()
    found: list[MasterKey] = []
    threads = [
        threading.Thread(target=lambda: found.append(derive(Passphrase.parse(PHRASE), derivation)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [(3, 256 * 1024 * 1024)]
    assert len(found) == 4
    assert len(set(found)) == 1
    assert derive(Passphrase.parse(PHRASE), Derivation.generate()) != found[0]


@pytest.mark.parametrize(
    "change",
    [
        {"memory_bytes": 2**40},
        {"memory_bytes": 8192},
        {"operations": 10**6},
        {"operations": 0},
        {"salt": "00"},
        {"salt": "g" * 32},
        {"algorithm": "scrypt"},
    ],
)
def test_a_derivation_that_nobody_wrote_is_refused(change: dict[str, object]) -> None:
    good = Derivation.generate()
    assert Derivation.from_json(good.to_json()) == good
    with pytest.raises(IntegrityError):
        Derivation.from_json({**good.to_json(), **change})


def test_a_key_file_holds_a_key_or_a_passphrase(tmp_path: Path) -> None:
    key = MasterKey.generate()
    write_key_file(tmp_path / "key", key)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert Unlock.read(tmp_path / "key") == Unlock(key)
    with pytest.raises(FileExistsError):
        write_key_file(tmp_path / "key", key)
    (tmp_path / "phrase").write_text(f"{PHRASE}\n")
    (tmp_path / "phrase").chmod(0o600)
    assert Unlock.read(tmp_path / "phrase") == Unlock(Passphrase.parse(PHRASE))


def test_a_key_file_must_be_a_plain_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match="No such file"):
        Unlock.read(path)
    write_key_file(path, MasterKey.generate())
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            Unlock.read(path)
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="symbolic"):
        Unlock.read(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="no plain file"):
        Unlock.read(tmp_path / "pipe")
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigError, match="UTF-8"):
        Unlock.read(path)
    path.write_bytes(b"a" * 5000)
    with pytest.raises(ConfigError, match="too large"):
        Unlock.read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_file_of_another_user_is_refused(tmp_path: Path) -> None:
    write_key_file(tmp_path / "key", MasterKey.generate())
    os.chown(tmp_path / "key", 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        Unlock.read(tmp_path / "key")


def test_public_keys_are_read_back() -> None:
    signing, receiving = SigningKey.generate(), PrivateKey.generate()
    assert VerifyKey.parse(f'me namespaces="x" {signing.public.to_text()} a comment') == (
        signing.public
    )
    assert PublicKey.parse(f" {receiving.public.to_text()}\n") == receiving.public
    for text in ("", "ssh-ed25519", "ssh-ed25519 !!", "ssh-ed25519 AAAA", "ssh-rsa AAAA"):
        with pytest.raises(ConfigError, match="public key"):
            VerifyKey.parse(text)
    for text in ("", "sbxp1_", "sbxp1_a", "sbxp1_!", receiving.public.to_text()[:-1]):
        with pytest.raises(ConfigError, match="public key"):
            PublicKey.parse(text)


def test_a_sealed_message_is_for_one_receiver() -> None:
    key, other = PrivateKey.generate(), PrivateKey.generate()
    sealed = seal_to(key.public, b"secret")
    assert unseal_with(key, sealed) == b"secret"
    assert seal_to(key.public, b"secret") != sealed
    for wrong in (sealed[:-1], sealed + b"x", b"", sealed[:40]):
        with pytest.raises(IntegrityError):
            unseal_with(key, wrong)
    with pytest.raises(IntegrityError):
        unseal_with(other, sealed)
    with pytest.raises(IntegrityError, match="none"):
        seal_to(PublicKey(bytes(32)), b"secret")


def test_digests_tell_nothing_without_key_or_salt() -> None:
    digest = keyed_digest(HUSH, b"data", purpose=b"a")
    assert digest == keyed_digest(HUSH, b"data", purpose=b"a")
    assert digest != keyed_digest(HUSH, b"data", purpose=b"b")
    assert digest != keyed_digest(HUSH[::-1], b"data", purpose=b"a")
    first, second = Commitment.to(b"data"), Commitment.to(b"data")
    assert first.opens(b"data")
    assert not first.opens(b"other")
    assert first.digest != second.digest
    assert first.salt.hex() not in repr(first)


def test_importing_costs_no_libsodium() -> None:
    program = (
        "import sys, sandbox_sdk; assert 'sandbox_sdk.crypto_utils' not in sys.modules;"
        "import sandbox_sdk.crypto_utils, sandbox_sdk.client; assert 'nacl' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
