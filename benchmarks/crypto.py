"""Sealing and signing, beside the same calls of ``nacl.bindings`` without labels or key ids.

Both use libsodium, so the ratio is what our format and Python cost.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable

from bench.measure import Case, Run, main
from bench.references import blocking
from bench.table import Promise
from nacl import bindings

from sandbox_sdk.crypto_utils import (
    DataKey,
    Label,
    SigningKey,
    seal,
    seal_stream,
    sign,
    unseal,
    unseal_stream,
)

COUNT = 200
ROUNDS = 5
STREAM_BYTES = 16 * 1024 * 1024
KEY, SIGNER = DataKey.generate(), SigningKey.generate()
LABEL = Label(type="event", id="1", sandbox="sb_1")
SMALL, LARGE = os.urandom(1024), os.urandom(STREAM_BYTES)


def per_call(work: Callable[[], object], count: int) -> Callable[[], float]:
    """Return what measures the mean seconds of a call."""

    def measure() -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        return (time.perf_counter() - began) / count

    return measure


def per_second(work: Callable[[], object]) -> Callable[[], float]:
    """Return what measures how many bytes pass in a second."""

    def measure() -> float:
        began = time.perf_counter()
        work()
        return STREAM_BYTES / (time.perf_counter() - began)

    return measure


def bare_record() -> bytes:
    """Seal 1 KiB with nothing but libsodium."""
    return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        SMALL, b"", os.urandom(24), KEY.reveal()
    )


def bare_stream() -> None:
    """Seal a stream with nothing but libsodium."""
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    bindings.crypto_secretstream_xchacha20poly1305_init_push(state, KEY.reveal())
    source, target = io.BytesIO(LARGE), io.BytesIO()
    while chunk := source.read(65536):
        target.write(bindings.crypto_secretstream_xchacha20poly1305_push(state, chunk))


def our_stream() -> bytes:
    """Seal a stream."""
    target = io.BytesIO()
    seal_stream(KEY, io.BytesIO(LARGE), target, LABEL)
    return target.getvalue()


async def body(run: Run) -> list[Promise]:
    """Measure all in turn."""
    sealed, stream = seal(KEY, SMALL, LABEL), our_stream()

    def open_stream() -> None:
        for _ in unseal_stream(KEY, io.BytesIO(stream), LABEL):
            pass

    calls: dict[str, Callable[[], object]] = {
        "libsodium alone, 1 KiB": bare_record,
        "seal 1 KiB": lambda: seal(KEY, SMALL, LABEL),
        "unseal 1 KiB": lambda: unseal(KEY, sealed, LABEL),
        "sign 1 KiB, as ssh-keygen": lambda: sign(SIGNER, SMALL, "bench"),
    }
    streams = {
        "libsodium alone, stream": bare_stream,
        "seal a stream": our_stream,
        "unseal a stream": open_stream,
    }
    cases = [
        *(
            Case(label=label, measure=blocking(per_call(work, run.count)))
            for label, work in calls.items()
        ),
        *(Case(label=label, measure=blocking(per_second(work))) for label, work in streams.items()),
    ]
    await run.alternate(cases, rounds=ROUNDS)
    bare, bare_stream_label = next(iter(calls)), next(iter(streams))
    return [
        *(run.promise(label, unit="us", against=bare) for label in calls),
        *(
            run.promise(label, unit="MB/s", against=bare_stream_label, more=True)
            for label in streams
        ),
    ]


if __name__ == "__main__":
    sys.exit(main("crypto", __doc__, COUNT, body))
