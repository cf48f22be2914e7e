"""What a server is not told of a sandbox, kept by its client: variables, first files, metadata.

They go into the sandbox over its sealed channel. Beside them stands how the sandbox was asked for,
by which the client knows later that it is the same one, under the same rules. On the disk they are
sealed as those of sandboxes on this machine are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, cast

import attrs

from sandbox_sdk.durable import write_durably
from sandbox_sdk.engine.reaper import remove_tree
from sandbox_sdk.errors import StateError
from sandbox_sdk.store.folders import StateFolders, state_error
from sandbox_sdk.store.sealing import SpecSeals
from sandbox_sdk.values import SandboxInfo, SandboxSpec
from sandbox_sdk.vault import Vault
from sandbox_sdk.wire import from_json

_SPEC, _FILES = "spec.json", "files.json"


class KeptSpecs:
    """The specs of a client's sandboxes on servers. Methods block on the disk.

    Args:
        folders: The client's state folder.
        vault: Its keys.
    """

    def __init__(self, folders: StateFolders, vault: Vault) -> None:
        self._folders = folders
        self._seals = SpecSeals(vault)

    def keep(self, id: str, spec: SandboxSpec) -> None:
        """Keep the spec of a new sandbox; what was kept of it before stays.

        Raises:
            ConfigError: The master key cannot be one.
            KeyNotFound: The key is wrapped under a master that is not here.
            StateError: It cannot be written.
        """
        folder = self._folders.remote(id)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if (folder / _SPEC).exists():
                return
            kept = self._seals.seal(SandboxInfo(id=id, spec=spec))
            if kept.files:
                files = {path: base64.b64encode(data).decode() for path, data in kept.files.items()}
                write_durably(folder / _FILES, json.dumps(files).encode())
            write_durably(folder / _SPEC, kept.spec.encode())
        except OSError as error:
            raise state_error(error, f"{folder} cannot be written", id) from error

    def spec(self, id: str) -> SandboxSpec | None:
        """Return a sandbox's spec without its first files; ``None`` if it is another client's.

        Raises:
            KeyNotFound: It is sealed, and its key is not here.
            IntegrityError: It is sealed, and was changed.
            StateError: It cannot be read.
        """
        return self._spec(id, needed=True)

    def files(self, id: str) -> Mapping[str, bytes]:
        """Return the first files, as long as they were not written.

        Raises:
            KeyNotFound: They are sealed, and their key is not here.
            IntegrityError: They are sealed, and were changed.
            StateError: They cannot be read.
        """
        told, found = self._read(id, _SPEC), self._read(id, _FILES)
        if told is None or found is None:
            return {}
        try:
            kept = {path: base64.b64decode(text, validate=True) for path, text in found.items()}
        except (TypeError, ValueError) as error:
            raise self._damaged(id, _FILES, error) from error
        return self._seals.unseal_files(id, told, kept)

    def wrote_files(self, id: str) -> None:
        """Note that the first files are in the sandbox.

        Raises:
            StateError: It cannot be noted.
        """
        try:
            (self._folders.remote(id) / _FILES).unlink(missing_ok=True)
        except OSError as error:
            raise state_error(error, "the first files cannot be removed", id) from error

    def forget(self, id: str) -> None:
        """Remove what is kept of a sandbox that was deleted.

        Raises:
            StateError: The host refused.
        """
        try:
            remove_tree(self._folders.remote(id))
        except OSError as error:
            raise state_error(error, "what was kept of it cannot be removed", id) from error

    def complete(self, info: SandboxInfo) -> SandboxInfo:
        """Return a server's record with what is kept here, each value hidden without its key.

        Raises:
            IntegrityError: It is sealed, and was changed.
            StateError: It cannot be read.
        """
        kept = self._spec(info.id, needed=False)
        if kept is None:
            return info
        spec = attrs.evolve(info.spec, env=kept.env, metadata=kept.metadata)
        return attrs.evolve(info, spec=spec)

    def _spec(self, id: str, *, needed: bool) -> SandboxSpec | None:
        told = self._read(id, _SPEC)
        if told is None:
            return None
        values = self._seals.unseal(id, told, needed=needed)
        try:
            return from_json(SandboxSpec, values, lenient=True)
        except ValueError as error:
            raise self._damaged(id, _SPEC, error) from error

    # Any: a file of JSON, whose shape its reader checks.
    def _read(self, id: str, name: str) -> dict[str, Any] | None:
        path = self._folders.remote(id) / name
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise state_error(error, f"{path} cannot be read", id) from error
        except ValueError as error:
            raise self._damaged(id, name, error) from error
        if not isinstance(found, dict):
            raise self._damaged(id, name, "it holds no JSON object")
        return cast("dict[str, Any]", found)

    def _damaged(self, id: str, name: str, why: object) -> StateError:
        path = self._folders.remote(id) / name
        return state_error(OSError(f"it is damaged: {why}"), f"{path} cannot be read", id)
