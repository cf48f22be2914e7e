"""Recorded answers of models, so that the same calls need not be made again, or cannot differ.

A cassette is a file of JSON lines, one for each answer, with the request that it answers. An answer
is found by the digest of its request, the key of its trial and the number of its call, so that
repeats never share one. Keys and known secrets are never written, and nothing in the file is run:
it may come from others.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import ConfigError, ReplayMiss
from sandbox_sdk.experiments.cassette_file import CassetteFile, Entry, damaged
from sandbox_sdk.experiments.config import CacheMode
from sandbox_sdk.experiments.models.base import ModelOutput, ModelProvider, ModelRequest
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.records.redaction import REDACTED, Redactor, looks_secret
from sandbox_sdk.wire import from_json

_place: ContextVar[str] = ContextVar("sandbox_sdk_trial", default="")


@contextmanager
def calls_of(trial: str) -> Generator[None]:
    """Say whose calls are made inside, for providers that ``Cassette.replaying`` returned.

    Args:
        trial: The trial's key; with more words where others than its own model are asked.
    """
    token = _place.set(trial)
    try:
        yield
    finally:
        _place.reset(token)


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

    def replaying(self, provider: ModelProvider) -> ModelProvider:
        """Return a provider that answers from the cassette and asks another by its mode.

        Whose calls they are is said with ``calls_of``.
        """
        return _Replaying(self, provider)

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


class _Replaying:
    """A provider in front of which a cassette stands."""

    def __init__(self, cassette: Cassette, provider: ModelProvider) -> None:
        self._cassette = cassette
        self._provider = provider

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._provider.name

    @property
    def supports_tools(self) -> bool:
        """Whether the provider's models can be expected to use tools."""
        return self._provider.supports_tools

    async def check(self, request: ModelRequest) -> None:
        """Go on if the model can be called, or need not be."""
        if self._cassette.mode != "replay":
            await self._provider.check(request)

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Return the recorded answer, or ask and record."""
        trial = _place.get()
        recorded = await self._cassette.find(self.name, request, trial)
        if recorded is not None:
            return recorded.output
        output = await self._provider.generate(request)
        await self._cassette.keep(self.name, request, trial, output)
        return output

    async def aclose(self) -> None:
        """Release the provider's connections."""
        await self._provider.aclose()


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
