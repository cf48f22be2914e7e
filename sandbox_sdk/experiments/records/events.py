"""One event of a run, and the line that it is in the journal.

In a sealed run a line has two halves: what everybody may read, ids, states, times and counts, and
in ``sealed`` all else. The second opens only beside the first as it was written, so that neither
can be changed, nor moved to another place, event or run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments.records.payloads import SEALED, Payloads

OPEN = frozenset(
    {
        *("attempt", "billed", "call", "duration", "exit_code", "fence", "index", "kept"),
        *("kept_bytes", "mock", "ok", "raw_bytes", "replayed", "requests", "reserved", "reused"),
        *("role", "sandbox", "sends", "shared", "state", "status", "total_time", "usage", "value"),
        "wait",
    }
)
"""The fields of an event's data that stay readable: none holds a text or a digest of one."""

_MARK = f',"{SEALED}":"'.encode()


# Any: an event's data is JSON, whose shape its type decides.
@attrs.frozen(kw_only=True)
class Event:
    """One line of the journal.

    Attributes:
        seq: Its number in the journal, from 1 without gaps.
        time: Seconds since the epoch.
        monotonic: Seconds of a clock that never steps back.
        type: What happened, for example ``model.requested``.
        run: The run's id.
        trial: The trial's key, where it is about one.
        attempt: The attempt's number, where it is about one.
        data: What else there is to say, as JSON.
    """

    seq: int
    time: float
    monotonic: float
    type: str
    run: str
    trial: str | None = None
    attempt: int | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def to_line(self) -> bytes:
        """Return the event as one line of JSON in ASCII."""
        return _text(self) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Event:
        """Return the event that a line holds; fields a newer version added are ignored.

        Raises:
            ValueError: The line holds none, or a sealed one.
        """
        try:
            match json.loads(line):
                case {
                    "seq": int(),
                    "time": int() | float(),
                    "monotonic": int() | float(),
                    "type": str(),
                    "run": str(),
                    "trial": str() | None,
                    "attempt": int() | None,
                    "data": dict(),
                } as fields if SEALED not in fields:
                    return cls(**{name: fields[name] for name in _NAMES})
                case _:
                    raise ValueError("not an event")
        except RecursionError:
            raise ValueError("nested too deep") from None


_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_NAMES = tuple(field.name for field in attrs.fields(Event))


def halves(event: Event, payloads: Payloads) -> tuple[bytes, ...]:
    """Return the JSON that an event's line is made of: all of it, or what is open and what not."""
    if payloads.key_id is None:
        return (_text(event),)
    data = event.data
    trial = event.trial and payloads.name(event.trial)
    opened = {name: data[name] for name in data if name in OPEN}
    closed = [event.trial, {name: data[name] for name in data if name not in OPEN}]
    head = attrs.evolve(event, trial=trial, data=opened)
    return _text(head), _ENCODER.encode(closed).encode("ascii")


def write_line(texts: tuple[bytes, ...], payloads: Payloads) -> bytes:
    """Return the line that is made of an event's halves."""
    if len(texts) == 1:
        return texts[0] + b"\n"
    head, closed = texts
    sealed = base64.b64encode(payloads.seal(closed, "event", head.decode("ascii")))
    return b"".join((head[:-1], _MARK, sealed, b'"}\n'))


def read_line(line: bytes, payloads: Payloads) -> Event:
    """Return the event that a line holds.

    Raises:
        IntegrityError: It was changed, moved, or is another run's.
        ValueError: The line holds none.
    """
    if payloads.key_id is None:
        return Event.from_line(line)
    before, mark, sealed = line.rpartition(_MARK)
    if not mark or not sealed.endswith(b'"}\n'):
        raise ValueError("not a sealed event")
    head = before + b"}"
    kept = base64.b64decode(sealed[:-3], validate=True)
    closed = payloads.unseal(kept, "event", head.decode("ascii"))
    event = Event.from_line(head)
    # Whoever sealed it has the key: it is a pair that ``halves`` made.
    trial, data = json.loads(closed)
    return attrs.evolve(event, trial=trial, data={**event.data, **data})


def _text(event: Event) -> bytes:
    return _ENCODER.encode({name: getattr(event, name) for name in _NAMES}).encode("ascii")
