"""Whether anything listens at a server's address, and why not."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio

from sandbox_sdk.errors import ModelUnavailable

_CONNECT_SECONDS = 10.0


async def knock(url: str, model: str) -> None:
    """Connect to the server's port and go away, so that a wrong address is told as that."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return  # only the proxy is reached from here
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            stream = await anyio.connect_tcp(host, port)
            await stream.aclose()
    except TimeoutError:
        raise ModelUnavailable(
            f"nothing answers at {url}: no connection within {_CONNECT_SECONDS:g} s; "
            "check the address and the network",
            model=model,
            retryable=True,
        ) from None
    except OSError as error:
        raise ModelUnavailable(
            f"nothing answers at {url}: {reason_of(error)}; start the server, or correct the "
            "address",
            model=model,
            retryable=True,
        ) from error


def reason_of(error: OSError) -> str:
    """Return the kernel's or resolver's words for a failed connection."""
    # Event loops put a text of their own, with the address again, in place of the kernel's.
    cause = error.__cause__
    match cause:
        case BaseExceptionGroup(exceptions=(first, *_)):
            cause = first  # a name with several addresses, all refused
        case _:
            pass
    inner = cause if isinstance(cause, OSError) else error
    number = inner.errno or 0
    text = os.strerror(number) if number > 0 else inner.strerror or str(inner)
    return text.lower() or type(inner).__name__
