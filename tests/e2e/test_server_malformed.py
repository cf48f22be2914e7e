"""What no client of ours would send: the server refuses it, and goes on.

Half of the requests are drawn from the OpenAPI document, with values of every wrong kind among the
right ones; the other half are bytes that are hardly HTTP. None may be answered with a failure of
the server, leave a traceback, or keep it from answering others.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import anyio
import anyio.abc
import attrs
import pytest
from served import ALLOW, serving_tcp

from sandbox_sdk.auth.authority import Authority
from sandbox_sdk.server.openapi import document
from sandbox_sdk.server.settings import Quota, ServerSettings
from sandbox_sdk.values import SandboxSpec
from sandbox_sdk.wire import to_json

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

OFFERED = ServerSettings(
    allow=frozenset(ALLOW),  # type: ignore[arg-type]
    quota=Quota(sandboxes=2, running=2),
    drain_seconds=0.1,
    header_seconds=5.0,
)
SHORT, LONG = 400, 10_000
ANSWER_SECONDS = 20.0
SILENCE_SECONDS = 0.1
SPEC = to_json(SandboxSpec(name="x", template="host"))
WILD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        10**400,
        -0.0,
        1e308,
        0.1,
        "",
        " ",
        "\0",
        "\ud800",
    ),
    *(
        "a" * 5000,
        "../../etc/passwd",
        "%00",
        "\r\nX: y",
        "é漢🙂",
        "' OR 1=1 --",
        [],
        {},
        [[]],
        {"": {}},
    ),
    *([None] * 100, {"a": {"b": {"c": [{}]}}}, "sb_00000000000000000000000000", "high", "host"),
)
LINES: tuple[bytes, ...] = (
    *(b"GET / HTTP/1.1", b"GET /v1/whoami HTTP/9.9", b"\0\0\0\0", b"GET", b"PRI * HTTP/2.0", b""),
    *(
        b"GET  /v1/whoami  HTTP/1.1",
        b"get /v1/whoami HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"\xff" * 64,
    ),
    *(b"GET http://[::1/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /" + b"a" * 20_000 + b" HTTP/1.1"),
    *(
        b"POST /v1/sandboxes HTTP/1.1",
        b"POST /v1/oauth/token HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01",
    ),
    *(b"GET /v1/sandboxes/%2e%2e/%00 HTTP/1.1", b"GET //v1///whoami HTTP/1.1", b"TRACE / HTTP/1.0"),
)
HEADERS: tuple[bytes, ...] = (
    *(
        b"Host: a",
        b"Host: a\r\nHost: b",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
    ),
    *(
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: chunked",
        b"A: " + b"b" * 20_000,
    ),
    *(
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip",
        b": x",
        b"A\0: b",
    ),
    *(
        b"Content-Type: application/json",
        b"Content-Encoding: gzip",
        b"Expect: 100-continue",
        b" folded",
    ),
    *(
        b"Upgrade: websocket\r\nConnection: Upgrade",
        b"Authorization: Basic =",
        b"Authorization: Bearer ",
    ),
    *(
        b"Sandbox-Protocol: 2",
        b"Origin: null",
        b"X-Request-Id: \xff\xfe",
        b"Cookie: " + b"a=b;" * 500,
    ),
    *(b"Range: bytes=0-", b"Connection: close", b"Content-Type: multipart/form-data; boundary="),
)
BODIES: tuple[bytes, ...] = (
    *(
        b"",
        b"{",
        b"{}",
        b"\xff\xfe",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"-1\r\n\r\n",
    ),
    *(
        b"[" * 3000,
        b"a" * 3000,
        b"0\r\n\r\nGET /v1/whoami HTTP/1.1\r\n\r\n",
        b'{"name": "\xed\xa0\x80"}',
    ),
)


@attrs.frozen
class Server:
    """A server and who may use it."""

    port: int
    key: str
    random: random.Random
    ids: list[str]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    operator = await Authority.init(tmp_path)
    authority = await Authority.open(tmp_path)
    seed = time.time_ns()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(authority.aclose)
        serving = serving_tcp(tmp_path, authority, OFFERED)
        _, endpoint = await stack.enter_async_context(serving)
        port = int(endpoint.rpartition(":")[2])
        yield Server(port, operator.secret, random.Random(seed), [])


def drawn(schema: dict[str, Any], chance: random.Random, depth: int = 0) -> Any:
    """A value of a schema, or now and then of none."""
    if chance.random() < 0.15 or depth > 6:
        return chance.choice(WILD)
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return drawn(document()["components"]["schemas"][name], chance, depth + 1)
    if "anyOf" in schema:
        return drawn(chance.choice(schema["anyOf"]), chance, depth + 1)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    match schema.get("type"):
        case "object":
            inner = schema.get("properties", {})
            wanted = [name for name in inner if chance.random() < 0.4]
            wanted += schema.get("required", [])
            if "additionalProperties" in schema:
                inner = dict.fromkeys(("a", "b/c", ""), schema["additionalProperties"])
                wanted = ["a", *wanted]
            made = {name: drawn(inner[name], chance, depth + 1) for name in wanted if name in inner}
            return {**made, **({"unknown": 1} if chance.random() < 0.1 else {})}
        case "array":
            items = schema.get("items", {})
            return [drawn(items, chance, depth + 1) for _ in range(chance.randrange(3))]
        case "integer" | "number":
            return chance.choice((0, 1, 5, -1, 2**40, 0.5))
        case "boolean":
            return chance.random() < 0.5
        case "null":
            return None
        case _:
            return chance.choice(("x", "python", "a/b", "*", "QUJD", "é", "")) or "y"


def from_document(server: Server) -> bytes:
    """A request of an operation of the document, whole and with good credentials."""
    chance = server.random
    path = chance.choice([*document()["paths"]])
    method, operation = chance.choice([*document()["paths"][path].items()])
    ids = [*server.ids, "sb_00000000000000000000000000", "ses_none", "..", "%00", "é"]
    target = path.replace("{id}", quote(chance.choice(ids), safe="%"))
    query: dict[str, str] = {}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query" and chance.random() < 0.6:
            value = drawn(parameter["schema"], chance)
            # A question for an end may well wait as long as is asked for.
            query[parameter["name"]] = "0.1" if parameter["name"] == "wait" else str(value)
    if query:
        target += "?" + urlencode(query, errors="replace")
    headers = {"Host": "a", "Authorization": f"Bearer {server.key}", "Connection": "close"}
    if chance.random() < 0.3:
        headers["Idempotency-Key"] = chance.choice(("a", "b", "", "é", "x" * 200, "a b"))
    if chance.random() < 0.1:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = chance.choice(("MDEyMzQ1Njc4OWFiY2RlZg==", "x", ""))
    body = b""
    if "requestBody" in operation:
        ((kind, content),) = operation["requestBody"]["content"].items()
        value = drawn(content["schema"], chance)
        if operation["operationId"] == "create" and chance.random() < 0.5:
            value = {**SPEC, **({chance.choice([*SPEC]): value} if chance.random() < 0.5 else {})}
        if kind == "application/json":
            body = json.dumps(value, allow_nan=chance.random() < 0.5).encode()
        else:
            body = urlencode(value if isinstance(value, dict) else {}, errors="replace").encode()
        headers["Content-Type"] = kind
        headers["Content-Length"] = str(len(body))
    head = [f"{method.upper()} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogatepass") + body


def hardly_http(server: Server) -> bytes:
    """Bytes that begin as a request may, and go wrong somewhere."""
    chance = server.random
    headers = chance.sample(HEADERS, chance.randrange(5))
    if chance.random() < 0.5:
        headers.append(f"Authorization: Bearer {server.key}".encode())
    end = chance.choice((b"\r\n\r\n", b"\n\n", b"\r\r", b"", b"\r\n"))
    data = b"\r\n".join([chance.choice(LINES), *headers]) + end + chance.choice(BODIES)
    if chance.random() < 0.3 and data:
        at = chance.randrange(len(data))
        data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    return data


async def exchanged(server: Server, data: bytes, *, whole: bool) -> bytes:
    """Send bytes, and return what is answered before the server hangs up or falls silent.

    Args:
        server: To which.
        data: They.
        whole: Whether they are a request that must be answered; else it may wait for more of it.
    """
    answer = b""
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        try:
            await stream.send(data)
            while True:
                patience = ANSWER_SECONDS if whole and not answer else SILENCE_SECONDS
                with anyio.move_on_after(patience) as waiting:
                    answer += await stream.receive()
                if waiting.cancelled_caught:
                    assert answer or not whole, f"no answer to {data!r}"
                    return answer
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return answer


async def bombard(server: Server, count: int) -> dict[int, int]:
    """Send so many requests; return how often each status was answered."""
    statuses: dict[int, int] = {}
    for number in range(count):
        whole = number % 2 == 1
        data = from_document(server) if whole else hardly_http(server)
        answer = await exchanged(server, data, whole=whole)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1]) if head.startswith(b"HTTP/1.") else 0
        statuses[status] = statuses.get(status, 0) + 1
        assert status < 500, (data, answer)
        assert b"Traceback" not in answer
        if status == 201:
            server.ids.append(json.loads(body)["id"])
            del server.ids[:-4]
        if number % 50 == 0:
            with anyio.fail_after(5.0):
                fine = await exchanged(server, b"GET /healthz HTTP/1.0\r\n\r\n", whole=True)
            assert fine.startswith(b"HTTP/1.0 200"), fine
    return statuses


async def check(server: Server, count: int, caplog: pytest.LogCaptureFixture) -> dict[int, int]:
    caplog.set_level(logging.INFO)
    statuses = await bombard(server, count)
    assert 400 in statuses
    assert statuses.keys() & {200, 201}  # it was not only refused at the door
    told = [record for record in caplog.records if record.exc_info or record.levelno > 30]
    assert not [vars(record) for record in told]
    assert server.key not in caplog.text  # which stood in many that were hardly HTTP
    return statuses


@pytest.mark.timeout(180)
async def test_what_is_malformed_is_refused_and_no_failure(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    await check(server, SHORT, caplog)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_ten_thousand_malformed_requests(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = await check(server, LONG, caplog)
    assert {200, 201, 400, 401, 404} <= statuses.keys()
