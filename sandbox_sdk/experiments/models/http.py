"""Models behind an HTTP API: keys and addresses, one bounded send, refused parameters.

What differs between APIs is a ``Dialect``. Keys come from the environment only. A provider's own
key (``OPENAI_API_KEY``) goes to the address in its variable (``OPENAI_BASE_URL``), or to the
provider; to a ``base_url`` of a config goes only the key whose variable the config names, so that
a config cannot send a key to a server its owner did not choose.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import attrs

from sandbox_sdk.errors import (
    ModelAuthError,
    ModelError,
    ModelNotFound,
    ModelTimeout,
    UnsupportedParameter,
)
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.chat import parse_json
from sandbox_sdk.experiments.models.dialect import Dialect, Server
from sandbox_sdk.experiments.models.http_errors import ContextFull, explain
from sandbox_sdk.experiments.models.reach import knock
from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.values import MIB

_LARGEST_ANSWER = 64 * MIB
_CLOSE_SECONDS = 10.0


class HttpProvider:
    """Calls models by one API. One connection pool per server and key.

    Args:
        dialect: How the API is spoken.
        environ: Where keys and the default address are looked up; by default the process's.
        redactor: Told of every key before it is used.
    """

    supports_tools = True

    def __init__(
        self,
        dialect: Dialect,
        *,
        environ: Mapping[str, str] | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._dialect = dialect
        self._environ = os.environ if environ is None else environ
        self._redactor = redactor or Redactor()
        self._clients: dict[Server, Any] = {}
        self._connecting = anyio.Lock()  # guards _clients, so that each is made once
        self._reachable: set[str] = set()
        # What a model refused once it need not refuse at every call: (url, model, parameter).
        self._wanted: set[tuple[str, str, str]] = set()

    @property
    def name(self) -> str:
        """The word before the slash in ``provider/model``."""
        return self._dialect.name

    async def check(self, request: ModelRequest) -> None:
        """Go on if there is a key, or a server that may need none, and something listens there.

        Raises:
            ModelNotFound: The API's package is not installed.
            ModelAuthError: There is no key and no address.
            ModelUnavailable: Nothing listens at the address.
            UnsupportedParameter: The API has no word for a parameter.
        """
        sdk = self._dialect.sdk
        if await anyio.to_thread.run_sync(importlib.util.find_spec, sdk) is None:
            raise ModelNotFound(
                f"{self.name}/{request.model} needs the package {sdk}; run: pip install "
                f'"sandbox-sdk[{sdk}]"',
                model=request.model,
            )
        server = self._server(request)
        self._supported(request, [])
        if server.url not in self._reachable:
            await knock(server.url, request.model)
            self._reachable.add(server.url)

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Call the model once; a parameter it refuses may be renamed or left out and sent again.

        Raises:
            ModelError: It gave no answer.
        """
        server = self._server(request)
        warnings: list[str] = []
        parameters = self._supported(request, warnings)
        for name in self._dialect.renamed:
            if (server.url, request.model, name) in self._wanted:
                self._rename(name, parameters, warnings)
        requests = 0
        while True:
            requests += 1
            try:
                output = await self._send(server, request, parameters, warnings)
            except UnsupportedParameter as error:
                name = error.parameter or ""
                if name in self._dialect.renamed and name in parameters:
                    self._wanted.add((server.url, request.model, name))
                    self._rename(name, parameters, warnings)
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
            warnings=(*output.warnings, *dict.fromkeys(warnings)),
        ).redacted(self._redactor)

    async def aclose(self) -> None:
        """Close all connections."""
        while self._clients:
            _, client = self._clients.popitem()
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
                await client.close()

    def _server(self, request: ModelRequest) -> Server:
        """Return where the request goes and with which key."""
        own = self.name.upper()
        url = request.base_url or self._environ.get(f"{own}_BASE_URL", "").rstrip("/")
        variable = request.api_key_env or ("" if request.base_url else f"{own}_API_KEY")
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
            raise ModelAuthError(self._dialect.no_key(request.model), model=request.model)
        return Server(
            url=url or self._dialect.url,
            sdk=self._dialect.sdk,
            key=key,
            variable=variable or f"{own}_API_KEY",
        )

    def _supported(self, request: ModelRequest, warnings: list[str]) -> dict[str, Any]:
        """Return the parameters that the API knows.

        Raises:
            UnsupportedParameter: There are others, which may not be left out.
        """
        unknown = self._dialect.unknown(request)
        if unknown and not request.drop_unsupported:
            raise UnsupportedParameter(
                f"{self.name} has no parameter {unknown[0]!r}; leave it out, or set "
                '"drop_unsupported": true to have it left out with a warning',
                model=request.model,
                parameter=unknown[0],
                unbilled=True,
            )
        warnings += [f"{self.name} has no parameter {name!r}; it was left out" for name in unknown]
        return {name: item for name, item in request.parameters.items() if name not in unknown}

    def _rename(self, name: str, parameters: dict[str, Any], warnings: list[str]) -> None:
        if name in parameters:
            other, warning = self._dialect.renamed[name]
            parameters[other] = parameters.pop(name)
            warnings.append(warning)

    async def _send(
        self,
        server: Server,
        request: ModelRequest,
        parameters: Mapping[str, Any],
        warnings: list[str],
    ) -> ModelOutput:
        client = await self._client(server)
        sdk = importlib.import_module(server.sdk)
        from aiohttp import ClientError
        from httpx2 import HTTPError

        create = self._dialect.create(client)
        timeout = request.attempt_timeout
        arguments = self._dialect.arguments(request, parameters, warnings)
        try:
            with anyio.fail_after(timeout):
                async with create(timeout=timeout, **arguments) as response:
                    data = await _read(response, request.model)
                    headers = response.headers
        except TimeoutError:
            raise ModelTimeout(
                f"the model {request.model!r} at {server.url} gave no complete answer within "
                f"{timeout:g} s; raise retries.attempt_timeout to allow it more",
                model=request.model,
                retryable=True,
            ) from None
        except (sdk.APIError, HTTPError, ClientError, OSError) as error:
            # The provider's text is in the new error, redacted; the old one may hold the key.
            raise explain(error, request, server, self._redactor) from None
        output = self._dialect.read(parse_json(data, request.model), request.model)
        identity: str | None = headers.get("x-request-id") or headers.get("request-id")
        return attrs.evolve(output, request_id=identity or output.request_id)

    async def _client(self, server: Server) -> Any:
        async with self._connecting:
            client = self._clients.get(server)
            if client is None:
                # In a thread: loading the SDK and the system's certificates takes most of a
                # second, and others wait on this loop.
                client = await anyio.to_thread.run_sync(self._dialect.connect, server)
                self._clients[server] = client
            return client


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
