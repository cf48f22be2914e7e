"""The application: who calls, what they may do, what happened, in one place for every route."""

from __future__ import annotations

import logging
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from sandbox_sdk.auth.exchange import TOKEN_PATH
from sandbox_sdk.auth.principal import Principal
from sandbox_sdk.backends.protocol import REQUEST_HEADER, VERSION, VERSION_HEADER
from sandbox_sdk.errors import (
    AuthenticationError,
    NotPermitted,
    RequestRefused,
    SandboxError,
    VersionMismatch,
)
from sandbox_sdk.server.calls import Call
from sandbox_sdk.server.openapi import document
from sandbox_sdk.server.principals import Authenticator, Peers
from sandbox_sdk.server.problems import problem
from sandbox_sdk.server.routes import ROUTES, Route
from sandbox_sdk.server.settings import ServerSettings
from sandbox_sdk.server.tenants import Tenants
from sandbox_sdk.server.tokens import answer_token, origin
from sandbox_sdk.wire import to_json

log = logging.getLogger("sandbox_sdk.server")
access_log = logging.getLogger("sandbox_sdk.server.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PRINCIPAL = web.RequestKey("principal", Principal)
_ID = web.RequestKey("request_id", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """A backend for each tenant, as an aiohttp application.

    Args:
        tenants: All tenants.
        offered: What the server offers.
        peers: Says who is at the other end of a Unix socket.
        authenticator: Proves who calls by what they send; ``None`` is nobody's word.

    Attributes:
        app: The application.
        draining: Whether it is about to end: then it starts nothing new.
    """

    def __init__(
        self,
        tenants: Tenants,
        offered: ServerSettings,
        *,
        peers: Peers,
        authenticator: Authenticator | None = None,
    ) -> None:
        self.draining = False
        self._tenants = tenants
        self._offered = offered
        self._peers = peers
        self._authenticator = authenticator
        self.app = web.Application(middlewares=[self._answer])
        self.app.on_response_prepare.append(_say_version)
        self.app.router.add_post(TOKEN_PATH, self._token)
        for route in ROUTES:
            self.app.router.add_route(route.method, route.path, partial(self._serve, route))
        self.app.router.add_get("/healthz", self._healthz, allow_head=False)
        self.app.router.add_get("/readyz", self._readyz, allow_head=False)
        self.app.router.add_get("/v1/openapi.json", _openapi, allow_head=False)

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request whatever happens, and log it."""
        given = request.headers.get(REQUEST_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        request[_ID] = request_id
        began = time.monotonic()
        status = 499  # the client hung up
        try:
            response = await self._explained(request, handler)
            status = response.status
            return response
        finally:
            self._log(request, status, time.monotonic() - began)

    async def _explained(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = request[_ID]
        try:
            _refuse_strangers(request)
            return await handler(request)
        except SandboxError as error:
            log.debug("server.refused", extra={"request_id": request_id, "code": error.code})
            return problem(error, request_id)
        except web.HTTPException as error:
            refused = RequestRefused(error.text or error.reason)
            answer = problem(refused, request_id, status=error.status)
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer
        except ConnectionError:
            raise  # nobody is left to tell
        except Exception:
            log.exception("server.failed", extra={"request_id": request_id})
            text = f"the server failed; its log tells more of request {request_id}"
            return problem(SandboxError(text), request_id)

    async def _serve(self, route: Route, request: web.Request) -> web.StreamResponse:
        principal = await self._identify(request)
        request[_PRINCIPAL] = principal
        if route.scope and not principal.may(route.scope):
            raise NotPermitted(
                f"this needs the scope {route.scope}, which the caller has not: ask for a key "
                "that has it"
            )
        call = Call(
            request=request,
            principal=principal,
            authenticator=self._authenticator,
            tenant=await self._tenants.of(principal.tenant),
            tenants=self._tenants,
            offered=self._offered,
            draining=self.draining,
        )
        # Any: what a handler returns is described by its route.
        made: Any = await route.handler(call)
        if isinstance(made, web.StreamResponse):
            return made
        if made is None:
            return web.Response(status=route.status)
        return web.json_response(to_json(made), status=route.status)

    async def _identify(self, request: web.Request) -> Principal:
        """Return who calls.

        Raises:
            AuthenticationError: Nobody who is known.
        """
        authorization = request.headers.get("Authorization")
        if authorization is not None:
            # Whoever sends credentials is who they say, or nobody: a wrong key at a Unix socket
            # must not make its sender the server's owner.
            if self._authenticator is None:
                raise AuthenticationError(
                    "this server knows no credentials: send none at its Unix socket, or have its "
                    "operator run sandbox-sdk server init"
                )
            return await self._authenticator.authenticate(authorization, peer=origin(request))
        transport = request.transport
        peer = None if transport is None else transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            return self._peers.identify(peer)
        raise AuthenticationError(
            "the request has no Authorization header: set api_key, or SANDBOX_API_KEY",
            reason="missing",
        )

    def _log(self, request: web.Request, status: int, seconds: float) -> None:
        """Log a request; no header, query or body is, as each may hold a secret."""
        principal = request.get(_PRINCIPAL)
        resource = request.match_info.route.resource
        access_log.info(
            "server.request",
            extra={
                "request_id": request[_ID],
                "method": request.method,
                "route": resource.canonical if resource else "",
                "sandbox_id": request.match_info.get("id", "")[:60],
                "tenant": principal.tenant if principal else "",
                "subject": principal.subject if principal else "",
                "status": status,
                "seconds": round(seconds, 6),
            },
        )

    async def _token(self, request: web.Request) -> web.Response:
        """Answer at the token endpoint, where whoever calls is not known yet."""
        return await answer_token(request, self._authenticator)

    async def _healthz(self, request: web.Request) -> web.Response:
        """Say that the server answers."""
        return web.json_response({"status": "ok"})

    async def _readyz(self, request: web.Request) -> web.Response:
        """Say whether it takes new sandboxes."""
        if self.draining:
            return web.json_response({"status": "draining"}, status=503)
        return web.json_response({"status": "ready"})


async def _openapi(request: web.Request) -> web.Response:
    return web.json_response(document())


async def _say_version(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[VERSION_HEADER] = VERSION
    response.headers[REQUEST_HEADER] = request.get(_ID, "")
    response.headers["Cache-Control"] = "no-store"


def _refuse_strangers(request: web.Request) -> None:
    """Refuse other versions of the protocol, and pages of other origins in a browser.

    Raises:
        VersionMismatch: The client speaks another version.
        NotPermitted: A page of another origin sent the request.
    """
    spoken = request.headers.get(VERSION_HEADER, VERSION)
    if spoken != VERSION:
        raise VersionMismatch(
            f"the client speaks version {spoken[:20]} of the protocol, and this server version "
            f"{VERSION}: upgrade the older of the two"
        )
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise NotPermitted("requests of pages of other origins are refused")
