"""A server's own secrets: the pepper of its digests and the keys that sign its tokens.

They are one file, ``auth/server.keys`` in the state folder, of mode 0600 and written whole or not
at all. It is as worth guarding as what it protects: whoever has it can make tokens.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Self

import attrs

from sandbox_sdk.auth.private_files import read_private
from sandbox_sdk.auth.secret_texts import Pepper
from sandbox_sdk.crypto_utils.keys import SigningKey, VerifyKey
from sandbox_sdk.durable import sync_folder, write_durably
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.folders import state_error

FILE = "server.keys"
"""The name of the file."""

_VERSION = 1


@attrs.frozen(kw_only=True)
class Signer:
    """One key that signs tokens, or did.

    Attributes:
        key: The key.
        since: From when on it signs, in seconds since the epoch.
        public: Its public half.
    """

    key: SigningKey
    since: float
    # Kept, as to derive it takes as long as to sign.
    public: VerifyKey = attrs.field(
        init=False, default=attrs.Factory(lambda made: _public(made), takes_self=True)
    )


@attrs.frozen(kw_only=True)
class ServerKeys:
    """What ``auth/server.keys`` holds.

    Attributes:
        issuer: The server's name in its tokens, drawn at random.
        pepper: The key of digests; it never changes, as every digest is under it.
        signers: The keys that sign, the newest last; the others verify what they signed before.
    """

    issuer: str
    pepper: Pepper
    signers: tuple[Signer, ...]

    @classmethod
    def generate(cls, now: float) -> Self:
        """Return new keys."""
        return cls(
            issuer=f"sandbox-sdk:{secrets.token_hex(8)}",
            pepper=Pepper.generate(),
            signers=(Signer(key=SigningKey.generate(), since=now),),
        )

    @property
    def signer(self) -> SigningKey:
        """The key that signs now."""
        return self.signers[-1].key

    def public_key(self, key_id: str) -> VerifyKey | None:
        """Return the public half of the key of an id, if it is one of these."""
        for signer in self.signers:
            if signer.key.id == key_id:
                return signer.public
        return None

    def signed(self, key_id: str, when: float) -> bool:
        """Return whether a key was the one that signed at a time.

        One that was replaced is no good for later times: it makes no token that lives now, once
        the longest-lived of those that it signed has expired.
        """
        ends = [*(signer.since for signer in self.signers[1:]), None]
        return any(
            signer.key.id == key_id and (end is None or when <= end)
            for signer, end in zip(self.signers, ends, strict=True)
        )

    def rotated(self, now: float, *, keep: float) -> Self:
        """Return keys with a new one that signs from now on.

        Args:
            now: Seconds since the epoch.
            keep: For how many seconds what the others signed is still good; 0 forgets them at
                once, as after a theft.
        """
        ends = [*(signer.since for signer in self.signers[1:]), now]
        kept = [
            signer
            for signer, end in zip(self.signers, ends, strict=True)
            if keep and end + keep >= now
        ]
        return attrs.evolve(self, signers=(*kept, Signer(key=SigningKey.generate(), since=now)))

    def write_new(self, folder: Path) -> None:
        """Write the keys of a server that has none yet; durable when it returns.

        Raises:
            StateError: There are some, which were not touched, or the folder cannot be written.
        """

        def write(path: Path) -> None:
            draft = path.with_name(f".{FILE}.{secrets.token_hex(4)}")
            try:
                write_durably(draft, self._to_bytes())
                os.link(draft, path)  # which, unlike a rename, takes no other's place
            finally:
                draft.unlink(missing_ok=True)
            sync_folder(path.parent)

        _writing(folder / FILE, write)

    def replace(self, folder: Path) -> None:
        """Write the keys in the place of those there are; the caller holds a lock.

        Raises:
            StateError: They cannot be written.
        """
        _writing(folder / FILE, lambda path: write_durably(path, self._to_bytes()))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the keys of a server.

        Raises:
            StateError: There are none, others may read them, or the file is damaged.
        """
        path = folder / FILE
        try:
            data = json.loads(read_private(path))
            if data["version"] != _VERSION:
                raise StateError(
                    f"{path} has version {data['version']}, and this SDK knows {_VERSION}: a newer "
                    "SDK wrote it; upgrade sandbox-sdk"
                )
            return cls(
                issuer=str(data["issuer"]),
                pepper=Pepper(bytes.fromhex(data["pepper"])),
                signers=tuple(
                    Signer(key=SigningKey(bytes.fromhex(one["seed"])), since=float(one["since"]))
                    for one in data["signers"]
                ),
            )
        except FileNotFoundError:
            raise StateError(
                f"{path} is missing: this state folder is no server's yet, or its keys are lost"
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StateError(f"{path} is damaged; restore it from a backup") from None

    def _to_bytes(self) -> bytes:
        text = json.dumps(
            {
                "version": _VERSION,
                "issuer": self.issuer,
                "pepper": self.pepper.reveal().hex(),
                "signers": [
                    {"seed": signer.key.reveal().hex(), "since": signer.since}
                    for signer in self.signers
                ],
            },
            indent=2,
        )
        return f"{text}\n".encode()


def create(folder: Path, now: float) -> None:
    """Make the keys of a server that has none yet. Blocks on the disk.

    Raises:
        StateError: There are some, which were not touched, or the folder cannot be written.
    """
    ServerKeys.generate(now).write_new(folder)


class LiveKeys:
    """The keys of a running server: another process may rotate them. Blocks on the disk.

    Args:
        folder: Where the file is.

    Raises:
        StateError: They cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = self._stamp()
        self.keys = ServerKeys.read(folder)

    def refresh(self) -> ServerKeys:
        """Return the keys as they are now; reads the file only if it was written since.

        Raises:
            StateError: They cannot be read.
        """
        seen = self._stamp()
        if seen != self._seen:
            self.keys = ServerKeys.read(self._folder)
            self._seen = seen
        return self.keys

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = (self._folder / FILE).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


def _public(signer: Signer) -> VerifyKey:
    return signer.key.public


def _writing(path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except FileExistsError as error:
        raise StateError(
            f"{path} exists: this state folder is a server's already", errno=error.errno
        ) from None
    except OSError as error:
        raise state_error(error, f"{path} cannot be written") from error
