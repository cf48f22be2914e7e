"""Keys at rest: random keys wrapped under a master, each in a small JSON file."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Literal, Self, get_args

import attrs

from sandbox_sdk.crypto_utils import records
from sandbox_sdk.crypto_utils.boxes import PrivateKey
from sandbox_sdk.crypto_utils.keys import DataKey, MasterKey, SigningKey
from sandbox_sdk.crypto_utils.passphrases import Derivation
from sandbox_sdk.crypto_utils.records import Label
from sandbox_sdk.errors import ConfigError, IntegrityError

KeyKind = Literal["data", "signing", "receiving"]
"""What a wrapped key is for."""

WrappedSecret = DataKey | SigningKey | PrivateKey

_FORMAT = "sandbox-sdk-key@1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_ID = re.compile(r"[0-9a-f]{16}")
_KINDS: dict[str, type[WrappedSecret]] = {
    "data": DataKey,
    "signing": SigningKey,
    "receiving": PrivateKey,
}


@attrs.frozen(kw_only=True)
class WrappedKey:
    """A key that only its master can open.

    Attributes:
        kind: What it is for.
        name: Whose it is, for example a sandbox's id.
        id: The key's id.
        created_at: When it was made, in seconds since the epoch.
        master_id: The id of the master key that wraps it.
        derivation: How that master is made of a passphrase; ``None`` if it is of none.
        sealed: The key, sealed.
    """

    kind: KeyKind
    name: str
    id: str
    created_at: int
    master_id: str
    derivation: Derivation | None
    sealed: bytes = attrs.field(repr=False)

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"{self.kind}-{self.name}.json"

    @classmethod
    def wrap(
        cls,
        key: WrappedSecret,
        name: str,
        master: MasterKey,
        derivation: Derivation | None,
        *,
        created_at: int,
    ) -> Self:
        """Return a key wrapped under a master."""
        kind = kind_of(key)
        label = _label(kind, name, created_at)
        return cls(
            kind=kind,
            name=checked_name(name),
            id=key.id,
            created_at=created_at,
            master_id=master.id,
            derivation=derivation,
            sealed=records.seal(master.subkey("wrap"), key.reveal(), label),
        )

    def unwrap(self, master: MasterKey) -> WrappedSecret:
        """Return the key.

        Raises:
            IntegrityError: The file was changed, or belongs to another name or master.
        """
        label = _label(self.kind, self.name, self.created_at)
        try:
            data = records.unseal(master.subkey("wrap"), self.sealed, label)
            key = _KINDS[self.kind](data)
        except (IntegrityError, ConfigError) as error:
            raise IntegrityError(
                f"the wrapped key {self.file_name} cannot be opened: {error.message}"
            ) from error
        if key.id != self.id:
            raise IntegrityError(f"the wrapped key {self.file_name} is not the one that it names")
        return key

    def rewrap(self, old: MasterKey, new: MasterKey, derivation: Derivation | None) -> Self:
        """Return the same key under another master.

        Raises:
            IntegrityError: As ``unwrap`` says.
        """
        key = self.unwrap(old)
        return type(self).wrap(key, self.name, new, derivation, created_at=self.created_at)

    def to_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "format": _FORMAT,
            "kind": self.kind,
            "name": self.name,
            "id": self.id,
            "created_at": self.created_at,
            "master": {
                "id": self.master_id,
                "derivation": self.derivation and self.derivation.to_json(),
            },
            "sealed": base64.b64encode(self.sealed).decode(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the one that ``to_json()`` wrote.

        Raises:
            IntegrityError: It is none.
        """
        match data:
            case {
                "format": str() as version,
                "kind": str() as kind,
                "name": str() as name,
                "id": str() as id,
                "created_at": int() as created_at,
                "master": {"id": str() as master_id, "derivation": derivation},
                "sealed": str() as sealed,
            } if (
                version == _FORMAT
                and kind in _KINDS
                and _NAME.fullmatch(name)
                and _ID.fullmatch(id)
                and _ID.fullmatch(master_id)
                and 0 <= created_at < 2**63
            ):
                pass
            case _:
                raise IntegrityError("this is no wrapped key, or one of a newer version")
        try:
            opened = base64.b64decode(sealed, validate=True)
        except ValueError:
            raise IntegrityError(f"the wrapped key {kind}-{name} was changed") from None
        return cls(
            kind=_kind(kind),
            name=name,
            id=id,
            created_at=created_at,
            master_id=master_id,
            derivation=None if derivation is None else Derivation.from_json(derivation),
            sealed=opened,
        )

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        return json.dumps(self.to_json(), indent=2).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the one that a file's content is.

        Raises:
            IntegrityError: It is none.
        """
        try:
            return cls.from_json(json.loads(data))
        except (ValueError, RecursionError) as error:
            if isinstance(error, IntegrityError):
                raise
            raise IntegrityError("this is no wrapped key: it is no JSON") from None


def kind_of(key: WrappedSecret) -> KeyKind:
    """Return what a key is for."""
    return _kind(next(kind for kind, cls in _KINDS.items() if isinstance(key, cls)))


def checked_name(name: str) -> str:
    """Return a name that can be part of a file's.

    Raises:
        ConfigError: It cannot.
    """
    if _NAME.fullmatch(name):
        return name
    line = f"key name: {name[:60]!r} has to be of letters, digits, dots, dashes and underscores"
    raise ConfigError(line, faults=(line,))


def _kind(kind: str) -> KeyKind:
    return next(known for known in get_args(KeyKind) if known == kind)


def _label(kind: str, name: str, created_at: int) -> Label:
    return Label(type=f"key.{kind}", id=name, version=created_at)
