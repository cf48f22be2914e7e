"""Signing keys by which two machines know each other: a worker's, and its callers'.

Each lies in a file of its own in ``keys/``, in clear and its owner's alone: it proves who one is,
and opens nothing that is sealed on a disk.
"""

from __future__ import annotations

from pathlib import Path

from sandbox_sdk.crypto_utils.keys import SigningKey, VerifyKey
from sandbox_sdk.crypto_utils.secret import KEY_BYTES
from sandbox_sdk.crypto_utils.secret_files import read_secret, write_secret
from sandbox_sdk.errors import ConfigError, StateError

WORKER, CLIENT = "worker.key", "client.key"


def identity(folder: Path, name: str) -> SigningKey:
    """Return a signing key of a folder, drawn and written at its first use; reads the disk.

    Args:
        folder: The folder ``keys/``, made if need be.
        name: ``WORKER`` or ``CLIENT``.

    Raises:
        ConfigError: The file is not this user's alone, or holds no key.
        StateError: It cannot be written.
    """
    path = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_secret(path, SigningKey.generate().reveal().hex())
    except FileExistsError:
        pass  # another process was first, and its key is the one
    except OSError as error:
        raise StateError(
            f"the key {path} cannot be written: {error.strerror or error}", errno=error.errno
        ) from error
    try:
        seed = bytes.fromhex(read_secret(path))
    except ConfigError as error:
        line = f"{path}: {error.message}"
        raise ConfigError(line, faults=(line,)) from None
    except ValueError:
        seed = b""
    if len(seed) != KEY_BYTES:
        line = f"{path}: holds no key; restore it from a copy, or remove it to have a new one made"
        raise ConfigError(line, faults=(line,))
    return SigningKey(seed)


def parse_worker_keys(text: str) -> tuple[VerifyKey, ...]:
    """Return the public keys that a setting lists, as ``server init`` prints them.

    Args:
        text: Each a line of an SSH public key file, with commas or line ends between them.

    Raises:
        ConfigError: One of them is no Ed25519 key.
    """
    return tuple(VerifyKey.parse(each) for each in text.replace(",", "\n").splitlines() if each)
