"""OpenAI's chat completions, from OpenAI or from any server that speaks them.

Keys come from the environment only. ``OPENAI_API_KEY`` goes to the address in
``OPENAI_BASE_URL``, or to OpenAI; to a ``base_url`` of a config goes only the key whose variable
the config names, so that a config cannot send a key to a server its owner did not choose.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelTimeout,
    UnsupportedParameter,
)
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.chat import parse_completion, parse_json
from sandbox_sdk.experiments.models.openai_errors import ContextFull, explain
from sandbox_sdk.experiments.models.reach import knock
from sandbox_sdk.experiments.redaction import Redactor
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.values import MIB

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"

_LARGEST_ANSWER = 64 * MIB
_CLOSE_SECONDS = 10.0
_IN_EXTRA_BODY = ("top_k",)  # common, but not OpenAI's
_NO_KEY = "not-needed"  # what the SDK sends to a server that asks for none


@attrs.frozen(kw_only=True)
class _Server:
    url: str
    key: str | None = attrs.field(default=None, repr=False)


class OpenAIProvider:
    """Calls chat completions. One connection pool per server and key.

    Args:
        environ: Where keys and the default address are looked up; by default the process's.
        redactor: Told of every key before it is used.
    """

    name = "openai"
    supports_tools = True

    def __init__(
        self, *, environ: Mapping[str, str] | None = None, redactor: Redactor | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._redactor = redactor or Redactor()
        self._clients: dict[_Server, AsyncOpenAI] = {}
        self._connecting = anyio.Lock()  # guards _clients, so that each is made once
        self._reachable: set[str] = set()
        # What a model refused once it need not refuse at every call: (url, model) -> parameters.
        self._renamed: set[tuple[str, str]] = set()

    async def check(self, request: ModelRequest) -> None:
        """Go on if there is a key, or a server that may need none, and something listens there.

        Raises:
            ModelAuthError: There is no key and no address.
            ModelUnavailable: Nothing listens at the address.
        """
        server = self._server(request)
        if server.url not in self._reachable:
            await knock(server.url, request.model)
            self._reachable.add(server.url)

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Call the model once; a parameter it refuses may be renamed or left out and sent again.

        Raises:
            ModelError: It gave no answer.
        """
        server = self._server(request)
        known = (server.url, request.model)
        parameters = dict(request.parameters)
        warnings: list[str] = []
        if known in self._renamed:
            _rename_max_tokens(parameters, warnings)
        requests = 0
        while True:
            requests += 1
            try:
                output = await self._send(server, request, parameters)
            except UnsupportedParameter as error:
                name = error.parameter
                if name == "max_tokens" and name in parameters:
                    self._renamed.add(known)
                    _rename_max_tokens(parameters, warnings)
                elif request.drop_unsupported and name in parameters:
                    del parameters[name]
                    warnings.append(f"the model refused {name!r}; it was left out")
                else:
                    raise
            except ContextFull as full:
                # Refused unread, so nothing was used.
                output = ModelOutput(
                    stop_reason="model_length", finish_reason=str(full), usage=TokenUsage()
                )
                break
            else:
                break
        return attrs.evolve(
            output,
            usage=attrs.evolve(output.usage, requests=requests),
            warnings=(*output.warnings, *warnings),
        ).redacted(self._redactor)

    async def aclose(self) -> None:
        """Close all connections."""
        while self._clients:
            _, client = self._clients.popitem()
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
                await client.close()

    def _server(self, request: ModelRequest) -> _Server:
        """Return where the request goes and with which key."""
        url = request.base_url or self._environ.get("OPENAI_BASE_URL", "").rstrip("/")
        variable = request.api_key_env or ("" if request.base_url else "OPENAI_API_KEY")
        key = self._environ.get(variable, "").strip() or None
        if key:
            self._redactor.add(key)
        elif request.api_key_env:
            raise ModelAuthError(
                f'the config names the environment variable {variable} with "api_key_env", but it '
                f"is not set or empty; run: export {variable}=...",
                model=request.model,
            )
        elif not url:
            raise ModelAuthError(
                f"there is no key for the model {request.model!r}. Do one of these:\n"
                "  export OPENAI_API_KEY=...                       # ask OpenAI\n"
                '  "base_url": "http://127.0.0.1:8000/v1"          # ask an OpenAI-compatible '
                "server (in the config)\n"
                "  sandbox-sdk models install smollm2              # ask a small local model, "
                'with "model": "local/smollm2"',
                model=request.model,
            )
        return _Server(url=url or OPENAI_URL, key=key)

    async def _send(
        self, server: _Server, request: ModelRequest, parameters: Mapping[str, Any]
    ) -> ModelOutput:
        client = await self._client(server)
        from aiohttp import ClientError
        from httpx2 import HTTPError
        from openai import OpenAIError

        # Any: the SDK's overloads cannot be met by arguments that a user's config decides.
        create: Any = client.chat.completions.with_streaming_response.create
        timeout = request.attempt_timeout
        try:
            with anyio.fail_after(timeout):
                async with create(timeout=timeout, **_arguments(request, parameters)) as response:
                    data = await _read(response, request.model)
                    request_id: str | None = response.headers.get("x-request-id")
        except TimeoutError:
            raise ModelTimeout(
                f"the model {request.model!r} at {server.url} gave no complete answer within "
                f"{timeout:g} s; raise retries.attempt_timeout to allow it more",
                model=request.model,
                retryable=True,
            ) from None
        except (OpenAIError, HTTPError, ClientError, OSError) as error:
            # The provider's text is in the new error, redacted; the old one may hold the key.
            raise explain(error, request, server.url, server.key, self._redactor) from None
        output = parse_completion(parse_json(data, request.model), request.model)
        return attrs.evolve(output, request_id=request_id or output.request_id)

    async def _client(self, server: _Server) -> AsyncOpenAI:
        async with self._connecting:
            client = self._clients.get(server)
            if client is None:
                # In a thread: loading the SDK and the system's certificates takes most of a
                # second, and others wait on this loop.
                client = await anyio.to_thread.run_sync(_new_client, server)
                self._clients[server] = client
            return client


def _new_client(server: _Server) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(
        api_key=server.key or _NO_KEY,
        base_url=server.url,
        max_retries=0,
        http_client=DefaultAioHttpClient(),
    )


# Any: the SDK's response, whose generic type nothing here needs.
async def _read(response: Any, model: str) -> bytes:
    data = bytearray()
    async for chunk in response.iter_bytes():
        data += chunk
        if len(data) > _LARGEST_ANSWER:
            raise ModelError(
                f"the answer of {model!r} is larger than {_LARGEST_ANSWER:,} bytes and was not "
                "read further",
                model=model,
            )
    return bytes(data)


def _rename_max_tokens(parameters: dict[str, Any], warnings: list[str]) -> None:
    if "max_tokens" in parameters:
        parameters["max_completion_tokens"] = parameters.pop("max_tokens")
        warnings.append(
            "the model refused 'max_tokens'; it was sent as 'max_completion_tokens', which counts "
            "hidden reasoning too"
        )


def _arguments(request: ModelRequest, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call's arguments for the SDK."""
    arguments = dict(parameters)
    body = {name: arguments.pop(name) for name in _IN_EXTRA_BODY if name in arguments}
    body |= arguments.pop("extra_body", {})
    if body:
        arguments["extra_body"] = body
    if request.tools:
        arguments["tools"] = list(request.tools)
    return {"model": request.model, "messages": list(request.messages), **arguments}
