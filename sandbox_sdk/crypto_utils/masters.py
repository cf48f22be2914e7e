"""Where the master key comes from: a text or a file, which holds a key or a passphrase."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Self

import attrs

from sandbox_sdk.crypto_utils.keys import PREFIX, MasterKey
from sandbox_sdk.crypto_utils.passphrases import Derivation, Passphrase, check_passphrase, derive
from sandbox_sdk.durable import sync_folder, write_durably
from sandbox_sdk.errors import ConfigError

LARGEST_FILE = 4096
"""Bytes of the largest key file."""


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
            return cls.parse(_read(path))
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
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        write_durably(draft, f"{key.to_text()}\n".encode())
        os.link(draft, path)  # which, unlike a rename, takes no other's place
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _is_key(text: str) -> bool:
    return text.strip().lower().startswith(PREFIX)


def _read(path: Path) -> str:
    try:
        # Non-blocking, so that a named pipe without a writer does not hang.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            fault = _fault(found, path)
            data = b"" if fault else file.read(LARGEST_FILE + 1)
    except OSError as error:
        fault, data = f"cannot be read: {error.strerror}", b""
    if not fault and len(data) > LARGEST_FILE:
        fault = "is too large for a key file"
    try:
        if not fault:
            return data.decode().strip()
    except UnicodeDecodeError:
        fault = "is not UTF-8 text"
    raise ConfigError(fault, faults=(fault,))


def _fault(found: os.stat_result, path: Path) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, and this process is user {os.geteuid()}"
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return f"can be read by others (mode {mode:04o}); run: chmod 600 {path}"
    return ""
