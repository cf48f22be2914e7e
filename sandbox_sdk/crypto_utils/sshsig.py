"""Signatures in the format of ``ssh-keygen -Y sign``, which ``ssh-keygen -Y verify`` accepts.

Source: PROTOCOL.sshsig of OpenSSH. The namespace says what a signature is for, so that one for a
file cannot be passed off as one for a manifest.
"""

from __future__ import annotations

import base64
import hashlib
import textwrap
from typing import Self

import attrs

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.keys import SigningKey, VerifyKey, ssh_string
from sandbox_sdk.crypto_utils.secret import KEY_BYTES
from sandbox_sdk.errors import IntegrityError

_MAGIC = b"SSHSIG"
_VERSION = (1).to_bytes(4, "big")
_TYPE = b"ssh-ed25519"
_HASH = b"sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70
LARGEST = 4096
"""Bytes of the longest text that is looked at; one of ours has some 300."""


def sign(key: SigningKey, message: bytes, namespace: str) -> str:
    """Return the signature of a message as the text of a ``.sig`` file.

    Args:
        key: The key.
        message: The message.
        namespace: What the signature is for; the verifier must name the same.
    """
    signature = key.sign(_signed(message, namespace))
    blob = _MAGIC + _VERSION
    blob += b"".join(
        ssh_string(part)
        for part in (
            key.public.ssh_blob,
            namespace.encode(),
            b"",
            _HASH,
            ssh_string(_TYPE) + ssh_string(signature),
        )
    )
    lines = textwrap.wrap(base64.b64encode(blob).decode(), _LINE)
    return "\n".join((_BEGIN, *lines, _END, ""))


@attrs.frozen(kw_only=True)
class SSHSignature:
    """What the text of a signature says, before anything of it is believed.

    Attributes:
        public: The key that it says has signed; whether it is to be trusted is for you to know.
        namespace: What it says it is for.
        signature: The Ed25519 signature.
    """

    public: VerifyKey
    namespace: str
    signature: bytes = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the Ed25519 signature that a ``.sig`` file holds.

        Raises:
            IntegrityError: It holds none.
        """
        try:
            return cls._parse(text)
        except (ValueError, IndexError):
            raise IntegrityError(
                "this is no SSH signature by an Ed25519 key over SHA-512, or it was changed"
            ) from None

    @classmethod
    def _parse(cls, text: str) -> Self:
        begin, *lines, end = text.strip().splitlines()
        if len(text) > LARGEST or (begin, end) != (_BEGIN, _END):
            raise ValueError
        blob = base64.b64decode("".join(lines), validate=True)
        start = _MAGIC + _VERSION
        key, namespace, reserved, algorithm, signature = _strings(blob.removeprefix(start))
        key_type, public = _strings(key)
        signature_type, data = _strings(signature)
        if (
            not blob.startswith(start)
            or (key_type, signature_type, algorithm, reserved) != (_TYPE, _TYPE, _HASH, b"")
            or len(public) != KEY_BYTES
            or len(data) != sodium.SIGNATURE_BYTES
        ):
            raise ValueError
        return cls(public=VerifyKey(public), namespace=namespace.decode(), signature=data)

    def verify(self, message: bytes, namespace: str) -> bool:
        """Return whether its key signed this message for this purpose."""
        signed = _signed(message, namespace)
        return self.namespace == namespace and self.public.verify(signed, self.signature)


def _signed(message: bytes, namespace: str) -> bytes:
    parts = (namespace.encode(), b"", _HASH, hashlib.sha512(message).digest())
    return _MAGIC + b"".join(map(ssh_string, parts))


def _strings(data: bytes) -> list[bytes]:
    """Return the length-prefixed strings that data consists of, to its last byte."""
    found: list[bytes] = []
    while data:
        end = 4 + int.from_bytes(data[:4], "big")
        if len(data) < end:
            raise ValueError
        found.append(data[4:end])
        data = data[end:]
    return found
