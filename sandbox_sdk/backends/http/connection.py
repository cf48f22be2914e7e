"""One pool of connections to a server: requests that are safe to repeat are, errors are ours.

A request is repeated when nothing answered, or the server asked for it, and only where a second
time does no more than the first.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import NoneType
from typing import NoReturn, TypeVar, cast

import aiohttp
import anyio
from anyio.to_thread import run_sync

from sandbox_sdk.auth import AuthStatus
from sandbox_sdk.auth.client import Auth
from sandbox_sdk.backends.protocol import LONGEST_FRAME, VERSION, VERSION_HEADER
from sandbox_sdk.errors import (
    AuthenticationError,
    ConfigError,
    IdempotencyInFlight,
    ProtocolError,
    RequestRefused,
    SandboxError,
    SandboxNotFound,
    ServerUnavailable,
    VersionMismatch,
)
from sandbox_sdk.values import MIB
from sandbox_sdk.wire import error_from_json, from_json

T = TypeVar("T")

TRIES = 5
"""How often a request is sent at most."""

CONNECT_SECONDS = 10.0
"""Longest time to reach the server."""

ANSWER_SECONDS = 60.0
"""Longest time for an answer, where a call says nothing else."""

_LARGEST_ANSWER = 64 * MIB
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONGEST_ASKED = 60.0  # who is to wait for longer is told so instead
_HEARTBEAT_SECONDS = 20.0
_GATEWAYS = frozenset({502, 503, 504})


class Connection:
    """The way to one server.

    Args:
        endpoint: ``unix:///path``, ``https://host[:port]``, or ``http://`` on this machine.
        auth: What proves who calls.
        ca_file: Certificates to trust instead of the system's.
    """

    def __init__(self, endpoint: str, auth: Auth, *, ca_file: Path | None = None) -> None:
        auth.bind(self._post, endpoint)
        self.endpoint = endpoint
        self._auth = auth
        self._ca_file = ca_file
        self._path = endpoint.removeprefix("unix://") if endpoint.startswith("unix://") else None
        self._base = "http://localhost" if self._path else endpoint.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._opening = anyio.Lock()  # guards _session
        self._closed = False

    async def authorization(self) -> str | None:
        """Return what is sent now as ``Authorization``; ``None`` is nothing.

        Raises:
            SandboxError: The server gives no token, or cannot be reached.
        """
        return await self._auth.header()

    def told(self, status: AuthStatus) -> AuthStatus:
        """Return who the server says one is, and by which of one's credentials."""
        return self._auth.told(status)

    async def request(
        self,
        cls: type[T],
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = ANSWER_SECONDS,
    ) -> T:
        """Send a request that is safe to repeat, and return what its answer describes.

        Args:
            cls: What the answer describes; ``NoneType`` is nothing.
            method: The HTTP method.
            path: The path, from ``/v1`` on.
            body: What is sent as JSON.
            query: The query.
            headers: More headers.
            seconds: Longest time for the answer; ``None`` is no bound.

        Raises:
            SandboxError: What the server told.
            ServerUnavailable: Nothing answered.
            VersionMismatch: The server speaks another version.
            ProtocolError: The answer is none that a server gives.
        """
        data = None if body is None else await run_sync(lambda: json.dumps(body).encode())
        pause = _FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                async with self.stream(
                    method, path, data=data, query=query, headers=headers, seconds=seconds
                ) as response:
                    text = await self._body(response)
                return _value(cls, text)
            except (ServerUnavailable, IdempotencyInFlight) as error:
                asked = error.retry_after or 0.0
                if not left or self._closed or not 0 <= asked <= _LONGEST_ASKED:
                    raise
                await anyio.sleep(max(asked, pause * random.uniform(0.5, 1.5)))  # noqa: S311
                pause = min(2 * pause, _LONGEST_PAUSE)
            except SandboxNotFound:
                if method != "DELETE" or left == TRIES - 1:
                    raise
                return _value(cls, b"")  # an earlier try did it, and its answer was lost
        raise AssertionError("unreachable: the last try returns or raises")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = ANSWER_SECONDS,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Send a request once, and give its answer, which is a success, to the block.

        Raises:
            SandboxError: As ``request``.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=seconds)
        sent = await self._auth.header()
        try:
            response = await self._send(method, path, data, query, headers, timeout, sent)
        except AuthenticationError:
            other = None if sent is None else await self._auth.refused(sent)
            if other is None:
                raise
            response = await self._send(method, path, data, query, headers, timeout, other)
        async with response:
            yield response

    async def connect(self, path: str, query: Mapping[str, str]) -> WebSocket:
        """Open a WebSocket.

        Raises:
            SandboxError: As ``request``.
        """
        session = await self._open()
        for is_last in (False, True):
            try:
                return await session.ws_connect(
                    f"{self._base}{path}",
                    params=query,
                    headers=_headers(None, None, await self._auth.header()),
                    heartbeat=_HEARTBEAT_SECONDS,
                    max_msg_size=LONGEST_FRAME,
                    compress=0,
                )
            except aiohttp.WSServerHandshakeError as error:
                # What the server tells is in a body, which the handshake leaves unread: asked for
                # again, it is told as an error. If it is none any more, it is tried once more.
                with contextlib.suppress(RequestRefused):
                    await self.request(NoneType, "GET", path, query=query)
                if is_last:
                    raise self._unreachable(error) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error) from error
        raise AssertionError("unreachable: the last try returns or raises")

    async def _send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        authorization: str | None,
    ) -> aiohttp.ClientResponse:
        """Send a request once; return its answer, which is a success."""
        session = await self._open()
        try:
            response = await session.request(
                method,
                f"{self._base}{path}",
                data=None if data is None else io.BytesIO(data),
                params=query,
                headers=_headers(data, headers, authorization),
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, SandboxError):
                raise
            raise self._unreachable(error) from error
        self._auth.learn_date(response.headers.get("Date"))
        try:
            await self._check(response)
        except BaseException:
            response.release()
            raise
        return response

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Go on if a response is a success of a server that speaks our version.

        Raises:
            SandboxError: What the server told.
            VersionMismatch: It speaks another version, or is no server of ours.
        """
        spoken = response.headers.get(VERSION_HEADER)
        if spoken is None and response.status in _GATEWAYS:
            raise _by_status(response.status, f"what is in front of {self.endpoint} answered")
        if spoken is None or (spoken != VERSION and response.ok):
            said = "does not say which version" if spoken is None else f"speaks version {spoken}"
            raise VersionMismatch(
                f"{self.endpoint} {said[:60]} of the protocol, and this SDK speaks version "
                f"{VERSION}: see that endpoint names a sandbox-sdk server, and upgrade the older "
                "of the two"
            )
        if response.status < HTTPStatus.MULTIPLE_CHOICES:
            return
        try:
            told = json.loads(await self._body(response))
        except (ValueError, RecursionError):
            told = None
        try:
            error = error_from_json(told)
        except ProtocolError:
            error = _by_status(response.status, f"{self.endpoint} answered")
        raise error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        try:
            async for data in response.content.iter_any():
                body += data
                if len(body) > _LARGEST_ANSWER:
                    raise ProtocolError(
                        f"the server's answer is longer than {_LARGEST_ANSWER} bytes"
                    )
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise self._unreachable(error) from error
        return bytes(body)

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._closed:
                raise ServerUnavailable("the client is closed: create a new one")
            if self._session is None:
                connector: aiohttp.BaseConnector
                if self._path is not None:
                    connector = aiohttp.UnixConnector(self._path, limit=0)
                else:
                    connector = aiohttp.TCPConnector(limit=0, ssl=await self._trust())
                self._session = aiohttp.ClientSession(
                    connector=connector,
                    auto_decompress=False,
                    # No proxy, cookie or password of the environment has a part in this.
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                    trace_configs=[_going_nowhere_else()],
                )
            return self._session

    async def _trust(self) -> ssl.SSLContext:
        try:
            return await run_sync(lambda: ssl.create_default_context(cafile=self._ca_file))
        except OSError as error:
            line = f"tls.ca_file: {self._ca_file} cannot be used: {error}"
            raise ConfigError(line, faults=(line,)) from error

    async def _post(self, path: str, form: Mapping[str, str]) -> tuple[int, object, str | None]:
        """Ask for a token; see ``auth.exchange.Post``."""
        session = await self._open()
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        try:
            async with session.post(
                f"{self._base}{path}",
                data=form,
                headers=_headers(None, None, None),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                text, date = await self._body(response), response.headers.get("Date")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, SandboxError):
                raise
            raise self._unreachable(error) from error
        try:
            return response.status, json.loads(text), date
        except (ValueError, RecursionError):
            return response.status, None, date

    def _unreachable(self, error: Exception) -> ServerUnavailable:
        what = str(error) or type(error).__name__
        return ServerUnavailable(
            f"nothing answered at {self.endpoint}: {what}; see that the server runs (sandbox-sdk "
            "serve), and that endpoint names it"
        )


def _going_nowhere_else() -> aiohttp.TraceConfig:
    """Return what stops a redirect: a WebSocket has no other way to say that it follows none."""

    async def refuse(
        session: aiohttp.ClientSession,
        context: object,
        params: aiohttp.TraceRequestRedirectParams,
    ) -> NoReturn:
        params.response.close()
        raise aiohttp.ClientError("it sends elsewhere, where nothing of ours is sent")

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _headers(
    data: bytes | None, more: Mapping[str, str] | None, authorization: str | None
) -> Mapping[str, str]:
    headers = {VERSION_HEADER: VERSION, "Accept-Encoding": "identity", **(more or {})}
    if data is not None:
        headers["Content-Type"] = "application/json"
    if authorization is not None:
        headers["Authorization"] = authorization
    return headers


WebSocket = aiohttp.ClientWebSocketResponse[bool]
"""A WebSocket as the client holds it."""


def _value(cls: type[T], text: bytes) -> T:
    try:
        if not text and issubclass(NoneType, cls):
            return cast("T", None)
        return from_json(cls, json.loads(text), lenient=True)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the server's answer is not what was agreed on: {error}") from error


def _by_status(status: int, what: str) -> SandboxError:
    text = f"{what} with status {status}"
    return ServerUnavailable(text) if status in _GATEWAYS else ProtocolError(text)
