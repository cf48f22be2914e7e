"""What a run is done with, as ``lock.json``: versions, and what is in force in its sandboxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sandbox_sdk.experiments.provenance import environment
from sandbox_sdk.experiments.records.payloads import PLAIN, Payloads
from sandbox_sdk.experiments.records.redaction import plain
from sandbox_sdk.experiments.records.run_folder import read_lock, write_lock

_SCHEMA = 1


# Any: the lock is a JSON file, shown and copied as it is.
class Lock:
    """The lock of one run, written when something is known that it does not hold.

    Args:
        folder: The run's folder.
        models: Label of a condition -> its model.
        settings: How the run goes about it; no part of any trial's key.
        payloads: Keeps it.
    """

    def __init__(
        self,
        folder: Path,
        models: Mapping[str, str | None],
        settings: Mapping[str, Any] | None = None,
        payloads: Payloads = PLAIN,
    ) -> None:
        self.drift: dict[str, list[Any]] = {}
        self._folder = folder
        self._settings = settings
        self._payloads = payloads
        self._lock: dict[str, Any] = {}
        self._conditions: dict[str, dict[str, Any]] = {
            label: {"model": model} for label, model in models.items()
        }
        self._writing = anyio.Lock()  # guards the file and what is known of it

    async def open(self) -> None:
        """Read what an earlier driver of the run wrote, and note what has changed since.

        Raises:
            StateError: It is damaged, or cannot be written.
        """
        await anyio.to_thread.run_sync(self._open)

    def _open(self) -> None:
        now = environment()
        before = read_lock(self._folder, self._payloads)
        if before is not None:
            self._lock = before
            self.drift = _drift(self._lock.get("environment", {}), now)
            self._conditions |= self._lock.get("conditions", {})
        self._lock = {"schema": _SCHEMA, "environment": now, **self._lock}
        if self.drift:
            self._lock["drift"] = {**self._lock.get("drift", {}), **self.drift}
        if self._settings is not None:
            self._lock |= {"conditions": self._conditions, "settings": self._settings}
            write_lock(self._folder, self._lock, self._payloads)

    async def sandbox_ready(
        self,
        condition: str,
        *,
        sandbox_id: str,
        isolation: Mapping[str, Any] | None,
        limits: Sequence[Mapping[str, Any]],
    ) -> None:
        """Note what is in force in a condition's sandboxes; that of its first is told.

        Raises:
            StateError: It cannot be written.
        """
        known = self._conditions.setdefault(condition, {})
        if "isolation" in known:
            return
        known |= {"isolation": isolation, "limits": list(limits)}
        if self._settings is None:
            sandbox = {"id": sandbox_id, "isolation": isolation, "limits": list(limits)}
            self._lock |= {"sandbox": sandbox, "model": known.get("model")}
        async with self._writing:
            # A copy: more may become known while the thread writes.
            lock = plain(self._lock)
            await anyio.to_thread.run_sync(write_lock, self._folder, lock, self._payloads)


def _drift(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what differs between two environments: name -> before, now."""
    first, second = _flat(before), _flat(now)
    names = sorted(first.keys() | second.keys())
    return {
        name: [first.get(name), second.get(name)]
        for name in names
        if first.get(name) != second.get(name)
    }


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    packages: Mapping[str, Any] = environment.get("packages", {})
    flat = {name: item for name, item in environment.items() if name != "packages"}
    return {**flat, **{f"packages.{name}": version for name, version in packages.items()}}
