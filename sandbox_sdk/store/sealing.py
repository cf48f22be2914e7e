"""What a sandbox was given, sealed in its record: values of ``env`` and ``metadata``, and files.

Sealed if there is a master key when it is made, and always at level ``high``. Names, and what else
a record says, stay readable, so that sandboxes can be listed and reaped without the key; they are
sealed besides, so that whoever has the key notices if they were changed.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.crypto_utils import KeyRing, Label, seal, unseal
from sandbox_sdk.errors import IntegrityError, KeyNotFound, StateError
from sandbox_sdk.policies import STRONG
from sandbox_sdk.values import SandboxInfo, SandboxSpec
from sandbox_sdk.vault import Vault
from sandbox_sdk.wire import to_json

SEALED = "sealed"
"""The field of a sealed record that holds the values, and the id of their key before it."""

HIDDEN = "[sealed]"
"""Stands for a value whose key is not here."""

_FILES = "paths"  # of a sealed part: the names of all files, so that none can be left out
_NAME = "sandboxes"
_VALUES = ("env", "metadata")  # hidden where they can be read
_OWN = "sandbox_sdk."  # what the SDK itself notes in metadata is no payload


@attrs.frozen
class Kept:
    """A sandbox's settings as they are recorded.

    Attributes:
        spec: JSON, without the files.
        files: Path -> content.
    """

    spec: str
    files: Mapping[str, bytes]


class SpecSeals:
    """Seals the settings of sandboxes. Blocks on the disk at its first use.

    Args:
        vault: The keys; ``None`` seals and opens nothing.
    """

    def __init__(self, vault: Vault | None) -> None:
        self._vault = vault

    def keeps(self, spec: SandboxSpec) -> bool:
        """Return whether a spec holds anything that may have to be sealed."""
        return bool(spec.env or spec.files or any(not n.startswith(_OWN) for n in spec.metadata))

    def seal(self, info: SandboxInfo) -> Kept:
        """Return a sandbox's settings as they are recorded.

        Raises:
            ConfigError: The master key cannot be one.
            KeyNotFound: The key is wrapped under a master that is not here.
            StateError: The folder of keys cannot be written.
        """
        spec = info.spec
        told: dict[str, Any] = to_json(attrs.evolve(spec, files={}))
        ring = self._ring(spec) if self.keeps(spec) else None
        if ring is None:
            return Kept(json.dumps(told), spec.files)
        key = ring.data_key(_NAME)
        text = json.dumps({**told, _FILES: sorted(spec.files)}).encode()
        told["env"] = dict.fromkeys(spec.env, HIDDEN)
        told["metadata"] = {
            name: value if name.startswith(_OWN) else HIDDEN
            for name, value in spec.metadata.items()
        }
        told[SEALED] = [key.id, base64.b64encode(seal(key, text, _label(info.id))).decode()]
        files = {path: seal(key, data, _label(info.id, path)) for path, data in spec.files.items()}
        return Kept(json.dumps(told), files)

    def unseal(self, sandbox_id: str, told: dict[str, Any], *, needed: bool) -> dict[str, Any]:
        """Return the JSON of a sandbox's settings as it was before it was sealed.

        Args:
            sandbox_id: The sandbox.
            told: What is recorded.
            needed: Whether the values matter; else each is ``HIDDEN`` where the key is not here.

        Raises:
            KeyNotFound: They matter, and the key is not here.
            IntegrityError: They were changed, or are another sandbox's.
        """
        if SEALED not in told:
            return told
        try:
            values = self._settings(sandbox_id, told)
        except KeyNotFound:
            if needed:
                raise
            return told
        changed = [
            name
            for name, value in told.items()
            if name in values and name not in _VALUES and values[name] != value
        ]
        if changed:
            raise IntegrityError(
                f"the record of sandbox {sandbox_id} was changed ({', '.join(changed)}); restore "
                "the state database from a copy"
            )
        return {**told, **values}

    def unseal_files(
        self, sandbox_id: str, told: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Return the files that a sandbox was given.

        Raises:
            KeyNotFound: They are sealed, and the key is not here.
            IntegrityError: They were changed, or are another sandbox's.
        """
        if SEALED not in told:
            return dict(files)
        if set(files) != set(self._settings(sandbox_id, told)[_FILES]):
            raise IntegrityError(
                f"files of sandbox {sandbox_id} were added, renamed or left out; restore the state "
                "database from a copy"
            )
        key_id, _ = _sealed(sandbox_id, told)
        return {
            path: self._open(sandbox_id, key_id, kept, _label(sandbox_id, path))
            for path, kept in files.items()
        }

    # Any: a spec as JSON.
    def _settings(self, sandbox_id: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that was sealed of a record. Whoever sealed it has the key."""
        opened = self._open(sandbox_id, *_sealed(sandbox_id, told), _label(sandbox_id))
        settings: dict[str, Any] = json.loads(opened)
        return settings

    def _open(self, sandbox_id: str, key_id: str, kept: bytes, label: Label) -> bytes:
        ring = None if self._vault is None else self._vault.ring()
        key = None if ring is None else ring.find_data_key(_NAME)
        if key is None:
            raise KeyNotFound(
                f"what sandbox {sandbox_id} was given is sealed with the key {key_id}, which is "
                "not here: set security.encryption_key or security.encryption_key_file",
                key_id=key_id,
            )
        try:
            return unseal(key, kept, label)
        except IntegrityError as error:
            raise IntegrityError(
                f"the {label.type} of sandbox {sandbox_id} ({label.id}) was changed: "
                f"{error.message}; restore the state database from a copy"
            ) from error

    def _ring(self, spec: SandboxSpec) -> KeyRing | None:
        if self._vault is None:
            return None
        return self._vault.ring(create=spec.security_level in STRONG)


def _sealed(sandbox_id: str, told: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the id of the key of what is sealed, and that."""
    match told[SEALED]:
        case [str() as key_id, str() as text]:
            with contextlib.suppress(ValueError):
                return key_id, base64.b64decode(text, validate=True)
        case _:
            pass
    raise StateError(
        f"the record of sandbox {sandbox_id} is damaged: its sealed part is none; restore the "
        "state database from a copy",
        sandbox_id=sandbox_id,
    )


def _label(sandbox_id: str, path: str | None = None) -> Label:
    if path is None:
        return Label(type="settings", id="env and metadata", sandbox=sandbox_id)
    return Label(type="file", id=path, sandbox=sandbox_id)
