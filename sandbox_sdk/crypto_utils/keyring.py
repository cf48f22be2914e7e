"""The keys of one state folder, each wrapped under the master, whose rotation leaves data as it is.

Everything here blocks on the disk, and a passphrase takes 0.4 s the first time: call it in a
thread. Threads and processes may share a folder.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import attrs

from sandbox_sdk.crypto_utils.key_files import (
    LOCAL_KEY,
    NEXT_KEY,
    PUBLIC,
    erase_key,
    failing,
    file_name_of,
    find_key,
    list_keys,
    locked,
    read_bundle,
    read_public,
    wrapped_folder,
)
from sandbox_sdk.crypto_utils.keys import DataKey, MasterKey, SigningKey
from sandbox_sdk.crypto_utils.masters import Unlock, write_key_file
from sandbox_sdk.crypto_utils.passphrases import Derivation
from sandbox_sdk.crypto_utils.wrapping import KeyKind, WrappedKey, WrappedSecret
from sandbox_sdk.durable import sync_folder, write_durably
from sandbox_sdk.errors import ConfigError, IntegrityError, KeyNotFound

Key = TypeVar("Key", DataKey, SigningKey)

RESULTS = "results"
"""The name of the key that signs results."""

AUDIT = "audit"
"""The name of the key that signs the audit log."""


@attrs.frozen(kw_only=True)
class KeySource:
    """Where the master key is, as it is configured; the first that is given is taken.

    Attributes:
        text: The key or passphrase itself.
        file: A file of 0600 that holds one.
    """

    text: str | None = attrs.field(default=None, repr=False)
    file: Path | None = None

    def find(self) -> Unlock | None:
        """Return what unlocks, or ``None`` if nothing is configured; reads the disk.

        Raises:
            ConfigError: It is a placeholder, can be guessed, or its file is not one's own alone.
        """
        if self.text is not None:
            return Unlock.parse(self.text)
        return None if self.file is None else Unlock.read(self.file)


class KeyRing:
    """The keys of one state folder.

    Args:
        folder: The folder, which exists.
        configured: The master that is configured; ``None`` is the folder's ``local.key``.
    """

    def __init__(self, folder: Path, configured: Unlock | None) -> None:
        self.folder = folder
        self._configured = configured
        self._unlocks: tuple[Unlock, ...] = ()  # new keys are wrapped under the first
        self._opened: dict[str, WrappedSecret] = {}
        self._using = threading.RLock()  # guards _opened; taken before the folder's lock

    @classmethod
    def open(cls, folder: Path, source: KeySource, *, create: bool = False) -> Self | None:
        """Return the keys of a folder, or ``None`` if no master key is there.

        Args:
            folder: The folder; made if need be.
            source: The master key that is configured; else it is the folder's ``local.key``.
            create: Make a ``local.key`` if there is none.

        Raises:
            ConfigError: The master key is a placeholder, can be guessed, or its file is not one's
                own alone.
            StateError: The folder cannot be written.
        """
        with failing(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            local = folder / LOCAL_KEY
            found = source.find()
            if found is None and create and not local.exists():
                # Another process may do the same now: whoever comes second takes what is there.
                with locked(folder), contextlib.suppress(FileExistsError):
                    write_key_file(local, MasterKey.generate())
            ring = cls(folder, found)
            ring._reload()
        return ring if ring._unlocks else None

    def data_key(self, name: str) -> DataKey:
        """Return the key of one sandbox's data or of one purpose, made at its first use.

        Raises:
            KeyNotFound: There is one, wrapped under a master that is not here.
            IntegrityError: There is one, and it was changed.
            StateError: It cannot be read or written.
        """
        return self._get("data", name, DataKey)

    def find_data_key(self, name: str) -> DataKey | None:
        """Return a key of ``data_key()`` if it was made, and ``None`` if not.

        Raises:
            KeyNotFound: It is wrapped under a master that is not here.
            IntegrityError: It was changed.
            StateError: It cannot be read.
        """
        with self._using, failing(self.folder):
            return self._find("data", name, DataKey)

    def signing_key(self) -> SigningKey:
        """Return the key that signs results, made at its first use.

        Raises:
            KeyNotFound: There is one, wrapped under a master that is not here.
            IntegrityError: There is one, and it was changed.
            StateError: It cannot be read or written.
        """
        key = self._get("signing", RESULTS, SigningKey)
        with failing(self.folder):
            if read_public(self.folder) != key.public:
                line = f"{key.public.to_text()} sandbox-sdk results\n"
                write_durably(self.folder / PUBLIC, line.encode())
        return key

    def audit_key(self) -> SigningKey:
        """Return the key that signs the audit log, made at its first use.

        Raises:
            KeyNotFound: There is one, wrapped under a master that is not here.
            IntegrityError: There is one, and it was changed.
            StateError: It cannot be read or written.
        """
        return self._get("signing", AUDIT, SigningKey)

    def erase(self, name: str) -> bool:
        """Remove the key of one sandbox's data for good; what was sealed with it stays sealed.

        Returns:
            Whether there was one.

        Raises:
            StateError: It cannot be removed.
        """
        with self._using, failing(self.folder):
            self._opened.pop(file_name_of("data", name), None)
            return erase_key(self.folder, name)

    def rotate(self, new: Unlock | None = None) -> int:
        """Wrap every key under another master, and return how many were not so already.

        The data stays as it is. If it is interrupted, every key is whole under the old or the new
        master: call it again with the same.

        Args:
            new: The new master; ``None`` makes a new ``local.key``.

        Raises:
            KeyNotFound: A key is wrapped under a master that is not here; nothing was changed.
            IntegrityError: A key was changed; no other was.
            StateError: The folder cannot be read or written.
        """
        local, coming = self.folder / LOCAL_KEY, self.folder / NEXT_KEY
        with self._using, failing(self.folder), locked(self.folder):
            there = list_keys(self.folder)
            opened = [(wrapped, self._master_of(wrapped)) for wrapped in there]
            for wrapped, master in opened:
                wrapped.unwrap(master)
            if new is None and not coming.exists():
                write_key_file(coming, MasterKey.generate())
            target = new or Unlock.read(coming)
            master, derivation = _for_new(target, there)
            changed = [(w, old) for w, old in opened if w.master_id != master.id]
            for wrapped, old in changed:
                self._write(wrapped.rewrap(old, master, derivation))
            if new is None:
                coming.replace(local)
                sync_folder(self.folder)
            else:
                self._configured = new
            self._unlocks = (target, *self._unlocks)
        return len(changed)

    def import_keys(self, bundle: Path) -> tuple[WrappedKey, ...]:
        """Take over the keys of a file that ``export_keys()`` wrote, and return those that are new.

        Raises:
            IntegrityError: The file is none, or a key in it was changed; nothing was taken over.
            KeyNotFound: A key in it is wrapped under a master that is not here; nothing was taken.
            ConfigError: There is another key of the same name here; nothing was taken over.
            StateError: The file cannot be read, or the folder not written.
        """
        with self._using, failing(self.folder), locked(self.folder):
            here = {wrapped.file_name: wrapped for wrapped in list_keys(self.folder)}
            fresh: list[WrappedKey] = []
            for wrapped in read_bundle(bundle):
                wrapped.unwrap(self._master_of(wrapped))
                if wrapped.file_name not in here:
                    fresh.append(wrapped)
                elif here[wrapped.file_name].id != wrapped.id:
                    line = f"{bundle}: there is another key {wrapped.file_name} here already"
                    raise ConfigError(line, faults=(line,))
            for wrapped in fresh:
                self._write(wrapped)
        return tuple(fresh)

    def _get(self, kind: KeyKind, name: str, cls: type[Key]) -> Key:
        with self._using, failing(self.folder):
            if found := self._find(kind, name, cls):
                return found
            with locked(self.folder):
                if found := self._find(kind, name, cls):  # made by another process meanwhile
                    return found
                self._reload()  # another process may have rotated
                key = cls.generate()
                master, derivation = _for_new(self._unlocks[0], _listed(self.folder))
                wrapped = WrappedKey.wrap(
                    key, name, master, derivation, created_at=int(time.time())
                )
                self._write(wrapped)
            self._opened[wrapped.file_name] = key
            return key

    def _find(self, kind: KeyKind, name: str, cls: type[Key]) -> Key | None:
        file_name = file_name_of(kind, name)
        if isinstance(known := self._opened.get(file_name), cls):
            return known
        wrapped = find_key(self.folder, kind, name)
        if wrapped is None:
            return None
        key = wrapped.unwrap(self._master_of(wrapped))
        if not isinstance(key, cls):  # for type checkers: its file's name says what it is
            raise IntegrityError(f"the wrapped key {file_name} is of another kind")
        self._opened[file_name] = key
        return key

    def _master_of(self, wrapped: WrappedKey) -> MasterKey:
        """Return the master of a wrapped key, of those that are here."""
        for look_again in (False, True):
            if look_again:
                self._reload()  # another process may have rotated
            for unlock in self._unlocks:
                master = unlock.master(wrapped.derivation)
                if master is not None and master.id == wrapped.master_id:
                    return master
        made_of = "a key" if wrapped.derivation is None else "a passphrase"
        raise KeyNotFound(
            f"the key {wrapped.file_name} is wrapped under {made_of} that is not the one given "
            f"here (its id is {wrapped.master_id}): set security.encryption_key or "
            "security.encryption_key_file to that one",
            key_id=wrapped.master_id,
        )

    def _reload(self) -> None:
        """Read the folder's own masters, which another process may have changed."""
        paths = (self.folder / LOCAL_KEY, self.folder / NEXT_KEY)
        own = [Unlock.read(path) for path in paths if path.exists()]
        now = own if self._configured is None else [self._configured, *own]
        self._unlocks = (*now, *(known for known in self._unlocks if known not in now))

    def _write(self, wrapped: WrappedKey) -> None:
        folder = wrapped_folder(self.folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        write_durably(folder / wrapped.file_name, wrapped.to_bytes())


def _listed(folder: Path) -> Iterator[WrappedKey]:
    """Yield the folder's keys; they are read only if any is asked for."""
    yield from list_keys(folder)


def _for_new(unlock: Unlock, there: Iterable[WrappedKey]) -> tuple[MasterKey, Derivation | None]:
    """Return the master that new keys are wrapped under, and how it is derived.

    A passphrase is derived once for a folder: the first key's salt is every later one's.
    """
    if master := unlock.master(None):
        return master, None
    derivations = {key.derivation: key.master_id for key in there if key.derivation is not None}
    for derivation, master_id in derivations.items():
        if (master := unlock.master(derivation)) and master.id == master_id:
            return master, derivation
    derivation = Derivation.generate()
    if derived := unlock.master(derivation):
        return derived, derivation
    raise AssertionError("what unlocks is a key or a passphrase")
