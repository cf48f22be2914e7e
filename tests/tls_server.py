"""A server over TLS, whose callers are known by ``served.Keys``: it prints its endpoint.

python tests/tls_server.py STATE CERTIFICATE KEY
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio
from served import EVERYTHING, Keys

from sandbox_sdk.config import Settings
from sandbox_sdk.server.serving import Listener, serve
from sandbox_sdk.server.sockets import listen_tcp, tls_context


async def main() -> None:
    """Serve until SIGTERM."""
    state_dir, certificate, key = map(Path, sys.argv[1:])
    listening = listen_tcp("127.0.0.1", 0, is_protected=True)
    listener = Listener(socket=listening, tls=tls_context(certificate, key))
    settings = Settings.load(state_dir=state_dir)
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with serve(settings, EVERYTHING, [listener], authenticator=Keys()):
            sys.stdout.write(f"https://127.0.0.1:{listening.getsockname()[1]}\n")
            sys.stdout.flush()
            await anext(aiter(signals))


anyio.run(main)
