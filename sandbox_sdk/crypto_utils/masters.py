"""Where the master key comes from: a text or a file, which holds a key or a passphrase."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import attrs

from sandbox_sdk.crypto_utils.keys import PREFIX, MasterKey
from sandbox_sdk.crypto_utils.passphrases import Derivation, Passphrase, check_passphrase, derive
from sandbox_sdk.crypto_utils.secret_files import read_secret, write_secret
from sandbox_sdk.errors import ConfigError


@attrs.frozen
class Unlock:
    """What unlocks wrapped keys: a master key, or a passphrase that gives one.

    Attributes:
        secret: The one or the other.
    """

    secret: MasterKey | Passphrase

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a text is: ``sbxk1_...`` a key, anything else a passphrase.

        Raises:
            ConfigError: It is a key with a typing mistake, a placeholder, or can be guessed.
        """
        if _is_key(text):
            return cls(MasterKey.parse(text))
        return cls(Passphrase.parse(text))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what a key file holds; reads the disk.

        Raises:
            ConfigError: It cannot be read, is not this user's alone, or holds no key.
        """
        try:
            return cls.parse(read_secret(path))
        except ConfigError as error:
            line = f"{path}: {error.message.removeprefix('encryption_key: ')}"
            raise ConfigError(line, faults=(line,)) from None

    def master(self, derivation: Derivation | None) -> MasterKey | None:
        """Return the master key, or ``None`` if what was wrapped so needs another kind.

        A passphrase takes time and memory the first time: call it in a thread.

        Args:
            derivation: How the wrapped key says its master was made; ``None`` is of no passphrase.
        """
        if isinstance(self.secret, MasterKey):
            return self.secret if derivation is None else None
        return None if derivation is None else derive(self.secret, derivation)


def check_encryption_key(text: str) -> None:
    """Go on if a text may be an encryption key; takes no time.

    Raises:
        ConfigError: It is a key with a typing mistake, a placeholder, or can be guessed.
    """
    if _is_key(text):
        MasterKey.parse(text)
    else:
        check_passphrase(text)


def write_key_file(path: Path, key: MasterKey) -> None:
    """Write a new key file that only its owner may read, whole or not at all, durable on return.

    Raises:
        FileExistsError: There is one; it was not touched.
        OSError: It cannot be written.
    """
    write_secret(path, key.to_text())


def _is_key(text: str) -> bool:
    return text.strip().lower().startswith(PREFIX)
