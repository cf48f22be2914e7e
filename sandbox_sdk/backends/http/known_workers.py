"""Workers that were met without a pinned key: the first that a server named is the one to trust.

A file of lines, each an endpoint and a public key, as ``known_hosts`` is for SSH.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sandbox_sdk.crypto_utils.keys import VerifyKey
from sandbox_sdk.durable import write_durably
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.store.folders import state_error

log = logging.getLogger("sandbox_sdk.backends")


class KnownWorkers:
    """The file. Its methods block on the disk.

    Args:
        path: The file, which may not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, endpoint: str) -> tuple[VerifyKey, ...]:
        """Return the workers of a server; none if it was not met before.

        Raises:
            ConfigError: The file is damaged.
            StateError: It cannot be read.
        """
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise state_error(error, f"{self._path} cannot be read") from error
        return tuple(
            self._parse(number, key)
            for number, line in enumerate(lines, 1)
            for named, _, key in [line.partition(" ")]
            if named == endpoint
        )

    def learn(self, endpoint: str, key: VerifyKey) -> tuple[VerifyKey, ...]:
        """Store the worker of a server that was not met before, and say so; return its workers.

        Raises:
            ConfigError: The file is damaged.
            StateError: It cannot be written.
        """
        try:
            with self._locked():
                if known := self.find(endpoint):
                    return known  # another process was first
                before = self._path.read_text() if self._path.exists() else ""
                write_durably(self._path, f"{before}{endpoint} {key.to_text()}\n".encode())
        except OSError as error:
            raise state_error(error, f"{self._path} cannot be written") from error
        log.warning(
            "the worker of %s was not known, and its key %s is trusted from now on; "
            "security.worker_key pins it",
            endpoint,
            key.fingerprint,
        )
        return (key,)

    def _parse(self, number: int, key: str) -> VerifyKey:
        try:
            return VerifyKey.parse(key)
        except ConfigError:
            line = f"{self._path}, line {number}: holds no public key; remove the line"
            raise ConfigError(line, faults=(line,)) from None

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Keep other processes from writing; the kernel unlocks at our death."""
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
