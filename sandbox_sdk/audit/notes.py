"""Checkpoints: how large a log is and the root over it, signed, in a format that others read.

Source: c2sp.org/signed-note and c2sp.org/tlog-checkpoint, with Ed25519 keys.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Self

import attrs

from sandbox_sdk.audit.merkle import HASH_BYTES
from sandbox_sdk.crypto_utils import SigningKey, VerifyKey
from sandbox_sdk.errors import ConfigError, IntegrityError

LARGEST_NOTE = 65536
"""Bytes of the largest checkpoint that is read."""

_ED25519 = b"\x01"
_ID_BYTES = 4
_SIGNATURE = "\N{EM DASH} "
_VERIFIER = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([0-9A-Za-z+/]{44})")
_MOST_SIGNATURES = 100


@attrs.frozen(kw_only=True)
class Verifier:
    """The public key of one log, with the name that it signs by.

    Attributes:
        name: The log's name, its origin.
        key: The key.
    """

    name: str
    key: VerifyKey

    @property
    def id(self) -> bytes:
        """Four bytes by which a signature says whose it is."""
        named = self.name.encode() + b"\n" + _ED25519 + self.key.data
        return hashlib.sha256(named).digest()[:_ID_BYTES]

    def to_text(self) -> str:
        """Return it as one word, ``name+id+key``, which the tools of such logs take."""
        return f"{self.name}+{self.id.hex()}+{_base64(_ED25519 + self.key.data)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``to_text()`` wrote.

        Raises:
            ConfigError: It is none, or was changed.
        """
        if match := _VERIFIER.fullmatch(text.strip()):
            data = base64.b64decode(match[3])
            found = cls(name=match[1], key=VerifyKey(data[1:]))
            if data[:1] == _ED25519 and found.id.hex() == match[2]:
                return found
        line = 'audit key: a word such as "sandbox-sdk/audit/...+1a2b3c4d+AQ..." is needed'
        raise ConfigError(line, faults=(line,))


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What is said of a log at one moment.

    Attributes:
        origin: The log's name.
        size: How many lines it had.
        root: The root of the Merkle tree over them.
    """

    origin: str
    size: int
    root: bytes = attrs.field(repr=bytes.hex)

    def sign(self, key: SigningKey) -> str:
        """Return it as a signed note."""
        signer = Verifier(name=self.origin, key=key.public)
        signature = _base64(signer.id + key.sign(self._text.encode()))
        return f"{self._text}\n{_SIGNATURE}{self.origin} {signature}\n"

    @classmethod
    def parse(cls, note: str, trusted: Iterable[Verifier]) -> Self:
        """Return what a signed note says, if one of these keys signed it.

        Raises:
            IntegrityError: It is no signed note of a checkpoint, or none of them signed it.
        """
        text, signed, signatures = note[:LARGEST_NOTE].rpartition("\n\n")
        if not signed or not signatures.endswith("\n"):
            raise IntegrityError("the checkpoint is no signed note: its signature is missing")
        text += "\n"
        found = cls._read(text)
        lines = signatures.splitlines()[:_MOST_SIGNATURES]
        known = {(each.name, each.id): each for each in trusted}
        for name, data in [_signature(line) for line in lines]:
            verifier = known.get((name, data[:_ID_BYTES]))
            # A log signs for itself only.
            if verifier is None or name != found.origin:
                continue
            if verifier.key.verify(text.encode(), data[_ID_BYTES:]):
                return found
            raise IntegrityError("the checkpoint is not what was signed")
        raise IntegrityError("the checkpoint is signed by none of the keys that are trusted")

    @property
    def _text(self) -> str:
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def _read(cls, text: str) -> Self:
        origin, size, root, *_ = [*text.split("\n"), "", ""]
        try:
            found = cls(origin=origin, size=int(size), root=base64.b64decode(root, validate=True))
        except ValueError:
            raise IntegrityError("the checkpoint has not the three lines of one") from None
        # One text only for one checkpoint: no spaces, signs, zeros or lines besides.
        if found._text != text or len(found.root) != HASH_BYTES or found.size < 0:
            raise IntegrityError("the checkpoint has not the three lines of one")
        return found


def _signature(line: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a signature's line.

    Raises:
        IntegrityError: It is none.
    """
    name, _, encoded = line.removeprefix(_SIGNATURE).partition(" ")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        data = b""
    if not line.startswith(_SIGNATURE) or len(data) <= _ID_BYTES:
        raise IntegrityError("the checkpoint has a line that is no signature")
    return name, data


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
