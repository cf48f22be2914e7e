"""The folder of built templates: found, named, finished, verified, removed. Everything blocks.

templates/<key>/            one built template
    venv/                       what a sandbox sees at /opt/venv, read-only
    template.json               what it is, and how it looked when it was finished
    used                        when a client last used it, by its time of change
templates/names/<name>.json     the template that a user's name means
templates/unfinished-*/         being built or removed, locked by whoever is at it
templates/empty/                shown where the interpreter has packages of its own
templates/plain-*/              ``python`` and its packages, for sandboxes without mounts
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from sandbox_sdk.engine import manifest, reaper
from sandbox_sdk.engine.folder_locks import lock_folder
from sandbox_sdk.errors import ConfigError, TemplateError
from sandbox_sdk.parse import suggestion
from sandbox_sdk.store.folders import state_error
from sandbox_sdk.values import TemplateInfo
from sandbox_sdk.wire import from_json, to_json

KEY = re.compile(r"[0-9a-f]{32}")
"""What a built template's key looks like."""

_UNFINISHED = "unfinished-"

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Named:
    """What a user's name means.

    Attributes:
        key: The template.
        preload: The modules that its sandboxes import ahead.
    """

    key: str
    preload: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class _Record:
    """What ``template.json`` holds.

    Attributes:
        info: What is told of the template, but for its names and use.
        manifest: How its files looked when it was finished.
    """

    info: TemplateInfo
    manifest: str


class TemplateStore:
    """The built templates of one state folder.

    Args:
        folder: Where they are kept; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self._folder

    def empty(self) -> Path:
        """Return a folder in which nothing is."""
        empty = self._folder / "empty"
        empty.mkdir(mode=0o755, exist_ok=True)
        return empty

    def venv(self, key: str) -> Path:
        """Return the environment of a template, which may not exist."""
        return self._folder / key / "venv"

    def place(self, key: str) -> Path:
        """Return the folder in which a template is built."""
        return self._folder / f"{_UNFINISHED}{key}"

    def named(self, wanted: str, *, also: Sequence[str] = ()) -> Named:
        """Return what a name or a key means.

        Args:
            wanted: The name or key.
            also: Other names to suggest for a misspelt one.

        Raises:
            TemplateError: There is no template of that name or key.
        """
        named = Named(key=wanted)
        if not KEY.fullmatch(wanted):
            names = dict(self._names())
            if wanted not in names:
                raise TemplateError(
                    f"there is no template {wanted[:60]!r}{suggestion(wanted, (*names, *also))}; "
                    "sandbox-sdk template list shows those that are built",
                    template=wanted,
                )
            named = names[wanted]
        self._record(named.key)
        return named

    def info(self, wanted: str) -> TemplateInfo:
        """Return what a template is, by its name or key.

        Raises:
            TemplateError: There is none.
        """
        key = self.named(wanted).key
        names = tuple(name for name, named in self._names() if named.key == key)
        try:
            used_at = (self._folder / key / "used").stat().st_mtime
        except FileNotFoundError:
            used_at = None
        return attrs.evolve(self._record(key).info, names=names, used_at=used_at)

    def list(self) -> tuple[TemplateInfo, ...]:
        """Return all that are built, oldest first."""
        keys = [path.name for path in self._folder.iterdir() if KEY.fullmatch(path.name)]
        return tuple(sorted(map(self.info, keys), key=lambda info: info.made_at))

    def hold(self, key: str) -> int:
        """Lock a template against removal and see that it looks as when it was finished.

        Returns:
            The lock; close it when no sandbox uses the template any more.

        Raises:
            TemplateError: It is not there, or was changed.
        """
        folder = self._folder / key
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _missing(key) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            record = self._record(key)  # also tells whether somebody was removing it
            _check(key, manifest.look(folder / "venv").sha256, record.manifest)
            (folder / "used").touch()
        except BaseException:
            os.close(lock)
            raise
        return lock

    def verify(self, wanted: str) -> TemplateInfo:
        """Read every file of a template and compare the digest.

        Raises:
            TemplateError: There is none, or it is not what was built.
        """
        info = self.info(wanted)
        _check(info.key, manifest.digest(self.venv(info.key)), info.sha256)
        return info

    def name(self, name: str, named: Named) -> None:
        """Let a name mean a template from now on."""
        file = self._name_file(name)
        file.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w") as written:
            json.dump(to_json(named), written)
        os.replace(beside, file)

    def claim(self, key: str) -> int | None:
        """Return a lock on the empty folder in which to build; ``None`` if there is no need.

        Raises:
            BlockingIOError: Another process is building this template.
        """
        place = self.place(key)
        while True:
            lock = lock_folder(place)
            try:
                if (self._folder / key).exists():  # another process was first
                    place.rmdir()
                elif not any(place.iterdir()):
                    return lock
                else:  # half of what a killed builder made
                    reaper.remove_tree(place)
                    continue
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
            return None

    def finish(self, key: str, packages: Sequence[str], versions: tuple[str, ...]) -> None:
        """Write down what was built in ``place``, and move it to where it belongs."""
        place = self.place(key)
        found = manifest.look(place / "venv")
        info = TemplateInfo(
            key=key,
            packages=tuple(packages),
            versions=versions,
            python=platform.python_version(),
            files=found.files,
            size_bytes=found.size_bytes,
            sha256=manifest.digest(place / "venv"),
            made_at=time.time(),
        )
        record = place / "template.json"
        record.write_text(json.dumps(to_json(_Record(info=info, manifest=found.sha256)), indent=2))
        record.chmod(0o444)
        place.rename(self._folder / key)

    def remove(self, wanted: str) -> TemplateInfo:
        """Remove a template and its names for good; return what it was.

        Raises:
            TemplateError: There is none, or a client uses it.
            StateError: The host refused.
        """
        info = self.info(wanted)
        folder = self._folder / info.key
        gone = self._folder / f"{_UNFINISHED}{info.key}-{time.monotonic_ns()}"
        try:
            lock = lock_folder(folder)
        except BlockingIOError:
            raise TemplateError(
                f"template {info.key} is in use: a client that is open, here or in another "
                "process, started a sandbox from it; close that client and try again",
                template=info.key,
            ) from None
        try:
            for name in info.names:
                self._name_file(name).unlink(missing_ok=True)
            folder.rename(gone)
            reaper.remove_tree(gone)
        except OSError as error:
            raise state_error(error, f"template {info.key} cannot be removed") from error
        finally:
            os.close(lock)
        return info

    def sweep(self) -> None:
        """Remove what killed builders and removers left.

        Raises:
            OSError: The host refused.
        """
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            try:
                lock = lock_folder(path)
            except BlockingIOError:
                continue
            try:
                reaper.remove_tree(path)
            finally:
                os.close(lock)

    def _record(self, key: str) -> _Record:
        try:
            text = (self._folder / key / "template.json").read_bytes()
        except FileNotFoundError:
            raise _missing(key) from None
        return _parsed(_Record, text, key)

    def names_of(self, key: str) -> tuple[str, ...]:
        """Return the names that mean a template now."""
        return tuple(name for name, named in self._names() if named.key == key)

    def _names(self) -> Iterator[tuple[str, Named]]:
        for path in sorted((self._folder / "names").glob("*.json")):
            yield path.stem, _parsed(Named, path.read_bytes(), path.stem)

    def _name_file(self, name: str) -> Path:
        return self._folder / "names" / f"{name}.json"


def _parsed(cls: type[T], text: bytes, template: str) -> T:
    try:
        return from_json(cls, json.loads(text), lenient=True)
    except (ValueError, ConfigError) as error:
        raise TemplateError(
            f"the record of template {template} is damaged: {error}; remove its folder below "
            "templates/ in the state folder, and build it again",
            template=template,
        ) from error


def _missing(key: str) -> TemplateError:
    return TemplateError(
        f"template {key} is not there (any more): build it again, or list those there are with: "
        "sandbox-sdk template list",
        template=key,
    )


def _check(key: str, found: str, built: str) -> None:
    if found != built:
        raise TemplateError(
            f"template {key} is not what was built: files were changed, added or removed since; "
            f"run sandbox-sdk template remove {key} and build it again",
            template=key,
        )
