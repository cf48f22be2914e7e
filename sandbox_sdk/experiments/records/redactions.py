"""What proves later what a redacted text was: commitments for everybody, their salts for its owner.

An event whose data was redacted names in ``redacted`` a commitment to each secret that stood there.
The salts, without which a commitment tells nothing, lie in ``redactions.json`` in the run's folder
and are in no export.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sandbox_sdk.crypto_utils.digests import Commitment
from sandbox_sdk.errors import IntegrityError, StateError
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads, seal_json, unseal_json
from sandbox_sdk.experiments.records.run_files import read_json, write_json

REDACTIONS = "redactions.json"


class Redactions:
    """The commitments to what one driver of a run redacts in it.

    Args:
        folder: The run's folder.
        payloads: Keeps the salts.
    """

    def __init__(self, folder: Path, payloads: Payloads = PLAIN) -> None:
        self._folder = folder
        self._payloads = payloads
        self._made: dict[str, Commitment] = {}
        self._unsaved: list[Commitment] = []

    def of(self, secrets: Iterable[str]) -> list[str]:
        """Return the commitments to secrets, in hexadecimal; to each the same one every time."""
        for secret in secrets:
            if secret not in self._made:
                self._made[secret] = Commitment.to(secret.encode())
                self._unsaved.append(self._made[secret])
        return [self._made[secret].digest.hex() for secret in secrets]

    def save(self) -> None:
        """Write the salts of new commitments, durable on return. Blocks on the disk.

        Raises:
            StateError: They cannot be written, or those written before were changed.
        """
        if fresh := self._unsaved[:]:
            try:
                before = _entries(self._folder, self._payloads)
            except IntegrityError as error:
                raise StateError(f"nothing more can be recorded: {error.message}") from error
            entries = [*before, *map(_entry, fresh)]
            kept = seal_json(self._payloads, REDACTIONS, {"commitments": entries}, open={})
            write_json(self._folder / REDACTIONS, kept)
            del self._unsaved[: len(fresh)]


def read_redactions(folder: Path, payloads: Payloads = PLAIN) -> list[Commitment]:
    """Return the commitments to what was redacted in a run, with their salts. Reads the disk.

    Raises:
        IntegrityError: They are sealed, and were changed.
        StateError: They cannot be read.
    """
    return [_commitment(entry) for entry in _entries(folder, payloads)]


# Any: an entry is a JSON object.
def _entries(folder: Path, payloads: Payloads) -> list[dict[str, Any]]:
    path = folder / REDACTIONS
    if not path.exists():
        return []
    kept = unseal_json(payloads, REDACTIONS, read_json(path), path=path)
    try:
        found: list[dict[str, Any]] = kept["commitments"]
        for entry in found:
            _commitment(entry)
    except (KeyError, TypeError, ValueError):
        raise StateError(
            f"{path} is damaged: it holds no commitments; restore it from a copy"
        ) from None
    return found


def _commitment(entry: dict[str, Any]) -> Commitment:
    return Commitment(digest=bytes.fromhex(entry["digest"]), salt=bytes.fromhex(entry["salt"]))


def _entry(commitment: Commitment) -> dict[str, Any]:
    return {"digest": commitment.digest.hex(), "salt": commitment.salt.hex()}
