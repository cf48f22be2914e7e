"""What a server is not told of a sandbox, kept by its client: variables, first files, metadata.

They go into the sandbox over its sealed channel. Beside them stands how the sandbox was asked for,
by which the client knows later that it is the same one, under the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs

from sandbox_sdk.durable import write_durably
from sandbox_sdk.engine.reaper import remove_tree
from sandbox_sdk.errors import SandboxError
from sandbox_sdk.store.folders import StateFolders, state_error
from sandbox_sdk.values import SandboxInfo, SandboxSpec
from sandbox_sdk.wire import from_json, to_json

_SPEC, _FILES = "spec.json", "files.json"


class KeptSpecs:
    """The specs of a client's sandboxes on servers. Methods block on the disk.

    Args:
        folders: The client's state folder.
    """

    def __init__(self, folders: StateFolders) -> None:
        self._folders = folders

    def keep(self, id: str, spec: SandboxSpec) -> None:
        """Keep the spec of a new sandbox; what was kept of it before stays.

        Raises:
            StateError: It cannot be written.
        """
        folder = self._folders.remote(id)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if (folder / _SPEC).exists():
                return
            if spec.files:
                write_durably(folder / _FILES, _text(attrs.evolve(spec, env={}, metadata={})))
            write_durably(folder / _SPEC, _text(attrs.evolve(spec, files={})))
        except OSError as error:
            raise state_error(error, f"{folder} cannot be written", id) from error

    def spec(self, id: str) -> SandboxSpec | None:
        """Return a sandbox's spec without its first files; ``None`` if it is another client's.

        Raises:
            StateError: It cannot be read.
        """
        return self._read(id, _SPEC)

    def files(self, id: str) -> Mapping[str, bytes]:
        """Return the first files, as long as they were not written.

        Raises:
            StateError: They cannot be read.
        """
        found = self._read(id, _FILES)
        return {} if found is None else found.files

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
        """Return a server's record with what is kept here.

        Raises:
            StateError: It cannot be read.
        """
        kept = self.spec(info.id)
        if kept is None:
            return info
        spec = attrs.evolve(info.spec, env=kept.env, metadata=kept.metadata)
        return attrs.evolve(info, spec=spec)

    def _read(self, id: str, name: str) -> SandboxSpec | None:
        path = self._folders.remote(id) / name
        try:
            return from_json(SandboxSpec, json.loads(path.read_bytes()), lenient=True)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not isinstance(error, SandboxError):
                raise state_error(error, f"{path} cannot be read", id) from error
            damaged = OSError(f"it is damaged: {error}")
            raise state_error(damaged, f"{path} cannot be read", id) from error


def _text(spec: SandboxSpec) -> bytes:
    return json.dumps(to_json(spec)).encode()
