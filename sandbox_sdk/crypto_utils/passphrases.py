"""Master keys made of passphrases by Argon2id: slow on purpose, and once a process.

A passphrase that can be guessed is no key, so short, repeated and well-known ones are refused.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import unicodedata
from typing import Any, ClassVar, Self, final

import attrs

from sandbox_sdk.crypto_utils import sodium
from sandbox_sdk.crypto_utils.keys import MasterKey
from sandbox_sdk.crypto_utils.secret import Secret
from sandbox_sdk.errors import ConfigError, IntegrityError

SHORTEST = 12
"""Characters of the shortest passphrase that is taken."""

_FEWEST_DIFFERENT = 6
_PLACEHOLDER = re.compile(r"your[-_ ].*|<.*>|change[-_ ]?me.*|x{3,}|.*placeholder.*", re.IGNORECASE)
_WELL_KNOWN = re.compile(
    r"(my|the|a|very|super)*(admin|changeme|default|demo|encryption|example|iloveyou|key|letmein"
    r"|master|passphrase|password|passw0rd|p@ssword|p@ssw0rd|private|qwerty|qwertyuiop|sandbox|sdk"
    r"|secret|test|welcome)*"
)
_SEQUENCES = ("abcdefghijklmnopqrstuvwxyz" * 4, "0123456789" * 10, "qwertyuiopasdfghjklzxcvbnm" * 4)

_MEMORY_BOUNDS = (64 * 1024 * 1024, 1024 * 1024 * 1024)
_OPERATION_BOUNDS = (1, 16)


@final
class Passphrase(Secret):
    """A passphrase, checked and in one Unicode form."""

    __slots__ = ()

    LENGTH: ClassVar[int | None] = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the passphrase that a text is.

        Raises:
            ConfigError: It is a placeholder, or can be guessed.
        """
        check_passphrase(text)
        return cls(_normal(text).encode())


def check_passphrase(text: str) -> None:
    """Go on if a text may be a passphrase; takes no time.

    Raises:
        ConfigError: It is a placeholder, or can be guessed.
    """
    if what := _weakness(_normal(text)):
        line = (
            f"encryption_key: {what}; make a key with: sandbox-sdk keys create, or take six random "
            "words"
        )
        raise ConfigError(line, faults=(line,))


@attrs.frozen(kw_only=True)
class Derivation:
    """How a passphrase became a key; stands beside whatever that key wraps.

    Attributes:
        salt: Drawn at random once, so that equal passphrases give different keys.
        operations: Passes of Argon2id.
        memory_bytes: Memory of Argon2id.
    """

    salt: bytes = attrs.field(repr=bytes.hex)
    operations: int = sodium.ARGON2_OPERATIONS
    memory_bytes: int = sodium.ARGON2_MEMORY_BYTES

    @classmethod
    def generate(cls) -> Self:
        """Return a new one, with a salt of its own."""
        return cls(salt=secrets.token_bytes(sodium.SALT_BYTES))

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "algorithm": "argon2id13",
            "salt": self.salt.hex(),
            "operations": self.operations,
            "memory_bytes": self.memory_bytes,
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the one that ``to_json()`` wrote.

        Raises:
            IntegrityError: It is none, or asks for memory and time that nothing here writes.
        """
        match data:
            case {
                "algorithm": "argon2id13",
                "salt": str() as salt,
                "operations": int() as operations,
                "memory_bytes": int() as memory_bytes,
            } if (
                re.fullmatch(f"[0-9a-f]{{{2 * sodium.SALT_BYTES}}}", salt)
                and _OPERATION_BOUNDS[0] <= operations <= _OPERATION_BOUNDS[1]
                and _MEMORY_BOUNDS[0] <= memory_bytes <= _MEMORY_BOUNDS[1]
            ):
                return cls(
                    salt=bytes.fromhex(salt), operations=operations, memory_bytes=memory_bytes
                )
            case _:
                raise IntegrityError("how a passphrase became a key is not told as it is written")


_derived: dict[bytes, MasterKey] = {}
_deriving = threading.Lock()  # guards _derived; held while one is made, so that it is made once
_process = secrets.token_bytes(32)  # so that _derived holds nothing by which to guess


def derive(passphrase: Passphrase, derivation: Derivation) -> MasterKey:
    """Return the master key of a passphrase.

    The first time in a process it takes some 0.4 s and 256 MiB: call it in a thread.
    """
    about = b"%d:%d:" % (derivation.operations, derivation.memory_bytes)
    text = passphrase.reveal()
    known_by = hashlib.blake2b(about + derivation.salt + text, key=_process).digest()
    with _deriving:
        if known_by not in _derived:
            data = sodium.argon2id(
                text, derivation.salt, derivation.operations, derivation.memory_bytes
            )
            _derived[known_by] = MasterKey(data)
        return _derived[known_by]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text.strip())


def _weakness(text: str) -> str | None:
    folded = text.casefold()
    bare = re.sub(r"[\W\d_]+", "", folded)
    if _PLACEHOLDER.fullmatch(text):
        return "is still a placeholder"
    if len(text) < SHORTEST:
        return f"has fewer than {SHORTEST} characters"
    if len(set(folded)) < _FEWEST_DIFFERENT:
        return f"has fewer than {_FEWEST_DIFFERENT} different characters"
    if folded in (folded + folded)[1:-1]:
        return "is a shorter text repeated"
    if _WELL_KNOWN.fullmatch(bare) and sum(c.isdigit() for c in text) < SHORTEST:
        return "is made of words that everybody tries first"
    if any(folded in sequence or folded in sequence[::-1] for sequence in _SEQUENCES):
        return "is a row of neighbouring letters or digits"
    return None
