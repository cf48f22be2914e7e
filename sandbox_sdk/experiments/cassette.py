"""Recorded answers of models, so that the same calls need not be made again, or cannot differ.

A cassette is a file of JSON lines, one for each answer, with the request that it answers. An answer
is found by the digest of its request, the key of its trial and the number of its call, so that
repeats never share one. Keys and known secrets are never written, and nothing in the file is run:
it may come from others.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import ConfigError, ReplayMiss
from sandbox_sdk.experiments.cassette_file import CassetteFile, Entry, damaged
from sandbox_sdk.experiments.config import CacheMode
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.redaction import REDACTED, Redactor, looks_secret
from sandbox_sdk.wire import from_json


@attrs.frozen(kw_only=True)
class Recorded:
    """An answer from a cassette.

    Attributes:
        output: The answer, with the usage of the call that it was recorded from.
        time: When it was recorded, in seconds since the epoch.
    """

    output: ModelOutput
    time: float


class Cassette:
    """Answers of models in a file, read and written by its mode.

    Args:
        path: The file; made when the first answer is recorded.
        mode: What to answer from it, and what to record; not ``off``.
        redactor: Cleans what is written.
    """

    def __init__(self, path: Path, mode: CacheMode, redactor: Redactor | None = None) -> None:
        self.mode = mode
        self._file = CassetteFile(path)
        self._redactor = redactor or Redactor()
        self._writing = anyio.Lock()  # guards the file's index while a thread appends
        self._loaded = False

    async def find(self, provider: str, request: ModelRequest, trial: str) -> Recorded | None:
        """Return the answer to a call, or ``None`` if it is to be made.

        Args:
            provider: The name of the model's provider.
            request: The call.
            trial: The key of its trial.

        Raises:
            ReplayMiss: It may not be made, and there is none; with how the nearest call differs.
            StateError: The file cannot be read, or is damaged.
        """
        if self.mode == "record":
            return None
        await self._load()
        asked = self._asked(provider, request)
        key = _key(asked, trial, request.call)
        if key in self._file:
            return await anyio.to_thread.run_sync(self._read, key)
        if self.mode != "replay":
            return None
        told = await anyio.to_thread.run_sync(self._file.nearest, asked, trial, request.call)
        raise ReplayMiss(
            f"the cassette {self._file.path} has no answer to call {request.call} of trial "
            f"{trial[:12]}, and with replay no model is asked; {told}. To record it, run with "
            '"cache": "use"',
            model=request.model,
        )

    async def keep(
        self, provider: str, request: ModelRequest, trial: str, output: ModelOutput
    ) -> None:
        """Record an answer, durable on return; nothing is recorded with ``replay``.

        Raises:
            StateError: It cannot be written.
        """
        if self.mode == "replay":
            return
        await self._load()
        asked = self._asked(provider, request)
        entry = Entry(
            key=_key(asked, trial, request.call),
            trial=trial,
            call=request.call,
            time=time.time(),
            request=asked,
            output=self._redactor.value(attrs.asdict(output)),
        )
        async with self._writing:
            await anyio.to_thread.run_sync(self._file.append, entry)

    async def _load(self) -> None:
        async with self._writing:
            if not self._loaded:
                await anyio.to_thread.run_sync(self._file.load)
                self._loaded = True

    def _read(self, key: str) -> Recorded:
        entry = self._file.read(key)
        try:
            output = from_json(ModelOutput, entry.output, lenient=True, path="output")
        except ConfigError as error:
            raise damaged(self._file.path, str(error)) from error
        return Recorded(output=output, time=entry.time)

    # Any: a request is JSON.
    def _asked(self, provider: str, request: ModelRequest) -> dict[str, Any]:
        """Return what decides the answer, without what differs from run to run."""
        parameters = dict(request.parameters)
        headers: Mapping[str, str] = parameters.get("extra_headers", {})
        if headers:
            hidden = {k: REDACTED if looks_secret(k) else v for k, v in headers.items()}
            parameters["extra_headers"] = hidden
        asked: dict[str, Any] = self._redactor.value(
            {
                "provider": provider,
                "model": request.model,
                "base_url": request.base_url,
                "messages": [_without_ids(message) for message in request.messages],
                "parameters": parameters,
                "tools": request.tools,
            }
        )
        return asked


def _key(asked: Mapping[str, Any], trial: str, call: int) -> str:
    return digest([digest(asked), trial, call])


def _without_ids(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message without the ids of tool calls, which providers make up anew each time."""
    found = {name: value for name, value in message.items() if name != "tool_call_id"}
    if calls := cast("list[Mapping[str, Any]] | None", found.get("tool_calls")):
        found["tool_calls"] = [
            {name: value for name, value in call.items() if name != "id"} for call in calls
        ]
    return found
