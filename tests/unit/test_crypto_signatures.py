"""Signatures: stock ``ssh-keygen`` accepts ours, ours accepts those of ``ssh-keygen``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox_sdk.crypto_utils import SigningKey, SSHSignature, VerifyKey, sign
from sandbox_sdk.errors import IntegrityError

KEY = SigningKey.generate()
MESSAGE = b"what was signed"
SPACE = "sandbox-sdk-test@v1"


def keygen(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", *arguments], input=stdin, capture_output=True, check=False)


def accepted(folder: Path, message: bytes, text: str, key: VerifyKey, space: str = SPACE) -> bool:
    (folder / "signers").write_text(f'owner namespaces="{SPACE}" {key.to_text()}\n')
    (folder / "sig").write_text(text)
    about = ("-f", str(folder / "signers"), "-I", "owner", "-n", space, "-s", str(folder / "sig"))
    return keygen("-Y", "verify", *about, stdin=message).returncode == 0


def test_ssh_keygen_accepts_our_signatures_and_nothing_else(tmp_path: Path) -> None:
    text = sign(KEY, MESSAGE, SPACE)
    assert accepted(tmp_path, MESSAGE, text, KEY.public)
    assert not accepted(tmp_path, MESSAGE + b"x", text, KEY.public)
    assert not accepted(tmp_path, MESSAGE, text, SigningKey.generate().public)
    assert not accepted(tmp_path, MESSAGE, sign(KEY, MESSAGE, "other"), KEY.public, "other")


def test_we_accept_what_ssh_keygen_signs(tmp_path: Path) -> None:
    keygen("-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id"))
    (tmp_path / "file").write_bytes(MESSAGE)
    keygen("-Y", "sign", "-f", str(tmp_path / "id"), "-n", SPACE, str(tmp_path / "file"))
    found = SSHSignature.parse((tmp_path / "file.sig").read_text())
    key = VerifyKey.parse((tmp_path / "id.pub").read_text())
    assert found.public == key
    assert found.verify(MESSAGE, SPACE)
    shown = keygen("-l", "-f", str(tmp_path / "id.pub")).stdout.decode()
    assert key.fingerprint in shown


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    keygen("-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "id"))
    (tmp_path / "file").write_bytes(MESSAGE)
    keygen("-Y", "sign", "-f", str(tmp_path / "id"), "-n", SPACE, str(tmp_path / "file"))
    with pytest.raises(IntegrityError, match="Ed25519"):
        SSHSignature.parse((tmp_path / "file.sig").read_text())


def test_a_signature_is_for_one_message_and_purpose() -> None:
    found = SSHSignature.parse(sign(KEY, MESSAGE, SPACE))
    assert (found.public, found.namespace) == (KEY.public, SPACE)
    assert found.verify(MESSAGE, SPACE)
    assert not found.verify(MESSAGE + b"x", SPACE)
    assert not found.verify(MESSAGE, "other")
    assert sign(KEY, MESSAGE, SPACE) == sign(KEY, MESSAGE, SPACE)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----", "\n" * 9]
    + [f"-----BEGIN SSH SIGNATURE-----\n{body}\n-----END SSH SIGNATURE-----" for body in
       ("!!", "U1NIU0lH", "U1NIU0lHAAAAAf////8=", "A" * 5000)],
)  # fmt: skip
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match="no SSH signature"):
        SSHSignature.parse(text)


def test_plain_signatures_are_of_one_key_and_message() -> None:
    signature = KEY.sign(MESSAGE)
    assert KEY.public.verify(MESSAGE, signature)
    assert not KEY.public.verify(MESSAGE[:-1], signature)
    # What the signature and the message have in common must not be moved between them.
    assert not KEY.public.verify(MESSAGE[1:], signature + MESSAGE[:1])
    assert not KEY.public.verify(MESSAGE, signature[:-1])
    assert not VerifyKey(b"short").verify(MESSAGE, signature)
