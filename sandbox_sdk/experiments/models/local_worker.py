"""Answer chat calls with a model file, inside a sandbox: JSON lines in, JSON lines out.

Usage: ``python3 local_worker.py MODEL LIBRARY THREADS CONTEXT``. LIBRARY is the folder that holds
the ``xllamacpp`` package. The first line out is ``{"ready": ...}`` or ``{"failed": reason}``; then
each line in is ``{"id": n, "body": {...}}`` and its answer ``{"id": n, "response": {...}}``.

Standard library and xllamacpp only: this file is copied into the sandbox and run alone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from typing import IO, Any

LARGEST_LOG = 1024 * 1024


def main() -> int:
    """Serve until standard input ends."""
    model, library, threads, context = sys.argv[1:5]
    # llama.cpp writes to descriptors 1 and 2 as it likes. The protocol keeps a copy of 1 for
    # itself; both go to a file, so that nobody need read them and they cannot fill a pipe.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.path.insert(0, library)
    with tempfile.TemporaryFile("a+b") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            server = load(model, int(threads), int(context))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must be told
            reply(out, {"failed": f"{type(error).__name__}: {error}; {tail(log)}"})
            return 1
        reply(out, {"ready": True})
        serve(server, out, log)
    return 0


# Any: xllamacpp has no types.
def serve(server: Any, out: IO[str], log: IO[bytes]) -> None:
    """Answer calls until standard input ends."""
    for line in sys.stdin.buffer:
        call = json.loads(line)
        try:
            answer = {"id": call["id"], "response": server.handle_chat_completions(call["body"])}
        except Exception as error:  # noqa: BLE001 - one bad call must not end the model
            answer = {"id": call["id"], "failed": f"{type(error).__name__}: {error}"}
        reply(out, answer)
        if os.fstat(log.fileno()).st_size > LARGEST_LOG:
            os.ftruncate(log.fileno(), 0)


def load(model: str, threads: int, context: int) -> Any:
    """Return the loaded model."""
    # By name: there is nothing to check its types against.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = context
    # One call at a time, a fixed number of threads, no reuse between calls: with these a seed
    # gives the same text again.
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.n_gpu_layers = 0
    params.n_threads_http = 1
    params.verbosity = 1  # errors only
    params.warmup = False
    params.ui = False
    # The library always listens somewhere: on a socket file that nobody knows, not on a port.
    params.hostnames = [os.path.join(tempfile.mkdtemp(), "unused.sock")]
    return xllamacpp.Server(params)


def reply(out: IO[str], message: dict[str, Any]) -> None:
    """Write one line."""
    out.write(json.dumps(message) + "\n")
    out.flush()


def tail(log: IO[bytes]) -> str:
    """Return the last of what the library said."""
    log.seek(0)
    return log.read()[-2000:].decode("utf-8", "replace").strip()


if __name__ == "__main__":
    sys.exit(main())
