"""How what a run holds is kept in its folder: as it is, or sealed with a key of the run's own.

Everything that is written into a run's folder or read from it passes here. What stays readable
without the key is for those to say who write: ids, states, times, counts and names of files, never
texts or plain digests of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Protocol

from sandbox_sdk.crypto_utils.digests import keyed_digest
from sandbox_sdk.crypto_utils.keys import DataKey
from sandbox_sdk.crypto_utils.records import Label, seal, unseal
from sandbox_sdk.crypto_utils.streams import CHUNK, seal_pieces, unseal_stream
from sandbox_sdk.errors import IntegrityError, StateError
from sandbox_sdk.experiments.records.digests import canonical_json

SEALED = "sealed"
"""The field of a JSON object that holds what of it is sealed."""


class Payloads(Protocol):
    """Keeps the bytes of one run."""

    @property
    def key_id(self) -> str | None:
        """The id of the key they are sealed with; ``None`` where they are not."""
        ...

    def seal(self, data: bytes, kind: str, id: str) -> bytes:
        """Return data as it is kept.

        Args:
            data: The data.
            kind: What it is, for example ``event``.
            id: Which one of that kind; opens only with the same.
        """
        ...

    def unseal(self, kept: bytes, kind: str, id: str) -> bytes:
        """Return what ``seal`` was given.

        Raises:
            IntegrityError: It was changed, or is another's.
        """
        ...

    def seal_pieces(self, pieces: Iterable[bytes], kind: str) -> Iterable[bytes]:
        """Return data of any length as it is kept."""
        ...

    def unseal_pieces(self, file: IO[bytes], kind: str) -> Iterator[bytes]:
        """Yield what ``seal_pieces`` was given; it is whole only at the iterator's end.

        Raises:
            IntegrityError: It was changed, cut short, or is another's.
        """
        ...

    def name(self, digest: str) -> str:
        """Return what something of this SHA-256 is called where everybody can read it."""
        ...


class Plain:
    """Keeps bytes as they are."""

    key_id: None = None

    def seal(self, data: bytes, kind: str, id: str) -> bytes:
        """Return the data."""
        return data

    def unseal(self, kept: bytes, kind: str, id: str) -> bytes:
        """Return the data."""
        return kept

    def seal_pieces(self, pieces: Iterable[bytes], kind: str) -> Iterable[bytes]:
        """Return the pieces."""
        return pieces

    def unseal_pieces(self, file: IO[bytes], kind: str) -> Iterator[bytes]:
        """Yield the file's content."""
        return iter(lambda: file.read(CHUNK), b"")

    def name(self, digest: str) -> str:
        """Return the digest."""
        return digest


PLAIN = Plain()


class Sealed:
    """Seals bytes to their run, kind and id.

    Args:
        key: The run's key.
        run: The run's id.
    """

    def __init__(self, key: DataKey, run: str) -> None:
        self._key = key
        self._run = run

    @property
    def key_id(self) -> str:
        """The id of the run's key."""
        return self._key.id

    def seal(self, data: bytes, kind: str, id: str) -> bytes:
        """Return the data sealed."""
        return seal(self._key, data, self._label(kind, id))

    def unseal(self, kept: bytes, kind: str, id: str) -> bytes:
        """Return the data, proven."""
        return unseal(self._key, kept, self._label(kind, id))

    def seal_pieces(self, pieces: Iterable[bytes], kind: str) -> Iterable[bytes]:
        """Yield a sealed stream of the pieces."""
        return seal_pieces(self._key, pieces, self._label(kind))

    def unseal_pieces(self, file: IO[bytes], kind: str) -> Iterator[bytes]:
        """Yield a stream's data, proven up to there."""
        return unseal_stream(self._key, file, self._label(kind))

    def name(self, digest: str) -> str:
        """Return a digest of the digest that says nothing to whoever has no key."""
        return keyed_digest(self._key.reveal(), digest.encode(), purpose=b"sbx.run.name").hex()

    def _label(self, kind: str, id: str = "") -> Label:
        return Label(type=f"run.{kind}", id=f"{self._run}/{id}")


# Any: plan and lock are JSON files, shown and copied as they are.
def seal_json(
    payloads: Payloads, kind: str, value: Mapping[str, Any], *, open: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a JSON object as it is kept in a file.

    Args:
        payloads: Keeps it.
        kind: What it is.
        value: The object.
        open: What stands beside it where it is sealed, for readers without the key.
    """
    if payloads.key_id is None:
        return dict(value)
    head = {**open, "key": payloads.key_id}
    text = json.dumps(value, allow_nan=False).encode()
    kept = payloads.seal(text, kind, canonical_json(head).decode())
    return {**head, SEALED: base64.b64encode(kept).decode()}


def unseal_json(
    payloads: Payloads, kind: str, kept: Mapping[str, Any], *, path: object
) -> dict[str, Any]:
    """Return the object that ``seal_json`` was given.

    Args:
        payloads: Keeps it.
        kind: What it is.
        kept: What the file holds.
        path: The file, for errors.

    Raises:
        IntegrityError: It was changed, or is another run's.
        StateError: It is not kept as the run's files are.
    """
    if payloads.key_id is None and SEALED not in kept:
        return dict(kept)
    head = {name: item for name, item in kept.items() if name != SEALED}
    try:
        sealed = base64.b64decode(kept[SEALED], validate=True)
        text = payloads.unseal(sealed, kind, canonical_json(head).decode())
        value: dict[str, Any] = json.loads(text)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error.message}", path=str(path)) from error
    except (KeyError, TypeError, ValueError):
        raise StateError(f"{path} is not sealed as its run is; restore it from a copy") from None
    return value
