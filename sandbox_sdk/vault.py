"""The keys of one client, found at their first use."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_sdk.crypto_utils import DataKey, KeyRing, KeySource


class Vault:
    """The folder ``keys/`` as one client uses it. Blocks on the disk; any thread may use it.

    Args:
        folder: The folder.
        source: Returns where the master key is that is configured.
    """

    def __init__(self, folder: Path, source: Callable[[], KeySource]) -> None:
        self.folder = folder
        self._source = source
        self._ring: KeyRing | None = None
        self._opening = threading.Lock()  # guards _ring

    def ring(self, *, create: bool = False) -> KeyRing | None:
        """Return the keys, or ``None`` if no master key is there.

        Args:
            create: Make ``local.key`` if there is none, and warn that it is to be kept.

        Raises:
            ConfigError: The master key is a placeholder, can be guessed, or its file is not this
                user's alone.
            StateError: The folder of keys cannot be read or written.
        """
        # Imported on use: most clients need no key.
        from sandbox_sdk.crypto_utils import KeyRing

        with self._opening:
            if self._ring is None:
                self._ring = KeyRing.open(self.folder, self._source())
            if self._ring is None and create:
                self._ring = KeyRing.open(self.folder, self._source(), create=True)
                warnings.warn(
                    f"no encryption key was set, so one was made at {self.folder / 'local.key'}: "
                    "keep a copy, as what is sealed opens with nothing else",
                    stacklevel=2,
                )
            return self._ring

    def workspace_key(self, sandbox_id: str) -> DataKey:
        """Return the key of a sandbox's saved workspace, made at its first use.

        Raises:
            ConfigError: As ``ring`` says.
            KeyNotFound: It is wrapped under a master key that is not here.
            IntegrityError: It was changed.
            StateError: It cannot be read or written.
        """
        ring = self.ring(create=True)
        if ring is None:
            raise AssertionError("a ring that may be made is there")
        return ring.data_key(sandbox_id)

    def erase(self, name: str) -> None:
        """Remove the key of a sandbox's saved workspace, or of a run, for good.

        Raises:
            StateError: It cannot be removed.
        """
        from sandbox_sdk.crypto_utils.key_files import erase_key

        if self._ring is not None:
            self._ring.erase(name)
        else:
            erase_key(self.folder, name)
