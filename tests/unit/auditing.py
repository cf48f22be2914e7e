"""What tests of the audit log share: a log in a folder, and events to fill it with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sandbox_sdk.audit.events import Entry
from sandbox_sdk.audit.log import FOLDER, VERIFIER_FILE
from sandbox_sdk.audit.notes import Checkpoint, Verifier
from sandbox_sdk.audit.segments import Segments
from sandbox_sdk.audit.verify import AuditVerification, verify_log
from sandbox_sdk.audit.writer import Pace, Writer
from sandbox_sdk.crypto_utils import KeyRing, KeySource, SigningKey

SMALL = Pace(events=7, seconds=3600.0, segment_bytes=6000)
"""Several checkpoints and segments in a hundred lines."""


def key_of(state: Path) -> SigningKey:
    """The key that signs the log of a state folder."""
    state.mkdir(exist_ok=True)
    ring = KeyRing.open(state / "keys", KeySource(), create=True)
    assert ring is not None
    return ring.audit_key()


class Bench:
    """A log in a state folder, written without a client.

    Attributes:
        newest: The newest checkpoint that was told.
    """

    def __init__(self, state: Path, pace: Pace = SMALL, known: Checkpoint | None = None) -> None:
        self.folder = state / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = key_of(state)
        self.newest: Checkpoint | None = None
        self._state = state
        self.writer = Writer(
            Segments(self.folder),
            lambda: self.key,
            pace,
            known=known,
            opened=self._opened,
            told=self._told,
        )

    def _opened(self, origin: str, key: SigningKey) -> None:
        text = Verifier(name=origin, key=key.public).to_text()
        (self._state / "keys" / VERIFIER_FILE).write_text(text)

    def _told(self, newest: Checkpoint) -> None:
        self.newest = newest

    def write(self, count: int, what: str = "test.event") -> None:
        """Write some events, all durable on return."""
        done = [
            self.writer.submit_now(Entry(type=what, subject=f"sb_{n}", data={"number": n}))
            for n in range(count)
        ]
        for one in done:
            one.result(timeout=15)

    def write_apart(self, count: int) -> None:
        """Write some events, each after the one before."""
        for _ in range(count):
            self.write(1)


def trusted(state: Path) -> list[Verifier]:
    """The public key of a state folder's log."""
    return [Verifier.parse((state / "keys" / VERIFIER_FILE).read_text())]


def check(state: Path, known: Sequence[Checkpoint] = ()) -> AuditVerification:
    """Verify the log of a state folder."""
    return verify_log(state / FOLDER, trusted(state), known=known)
