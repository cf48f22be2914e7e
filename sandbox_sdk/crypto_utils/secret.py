"""The base of all keys: bytes that never print, never pickle, and compare in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import ClassVar, NoReturn, Self

from sandbox_sdk.errors import ConfigError

KEY_BYTES = 32
"""Length of every symmetric key, Ed25519 seed and X25519 key."""

_ID_BYTES = 8


class Secret:
    """Bytes that must not leave the process by accident.

    They are in no ``repr``, ``str``, pickle or copy. Nothing can wipe them: Python and libsodium's
    binding copy bytes freely, so whoever reads this process's memory reads its keys.

    Args:
        data: The bytes.

    Raises:
        ConfigError: They are not as many as this kind of key has.
    """

    __slots__ = ("__data", "_id")

    LENGTH: ClassVar[int | None] = KEY_BYTES
    """How many bytes this kind of key has; ``None`` is any number."""

    def __init__(self, data: bytes) -> None:
        if self.LENGTH is not None and len(data) != self.LENGTH:
            line = f"key: a {type(self).__name__} has {self.LENGTH} bytes, not {len(data)}"
            raise ConfigError(line, faults=(line,))
        self.__data = bytes(data)
        self._id = hashlib.blake2b(data, digest_size=_ID_BYTES, person=b"sbx.kid").digest()

    @property
    def id(self) -> str:
        """The key's id: 16 hexadecimal digits that tell keys apart and give nothing away."""
        return self._id.hex()

    @property
    def id_bytes(self) -> bytes:
        """The key's id as its eight bytes."""
        return self._id

    def reveal(self) -> bytes:
        """Return the bytes, for libsodium or for keeping them somewhere safe."""
        return self.__data

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret) or type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self.reveal(), other.reveal())

    def __hash__(self) -> int:
        return hash((type(self), self.id))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled: give the other process its own way to "
            "the key"
        )

    def __getstate__(self) -> NoReturn:
        self.__reduce__()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class RandomKey(Secret):
    """A key that is drawn at random."""

    __slots__ = ()

    @classmethod
    def generate(cls) -> Self:
        """Return a new random key."""
        return cls(secrets.token_bytes(KEY_BYTES))
