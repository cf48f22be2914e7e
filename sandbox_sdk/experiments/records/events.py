"""One event of a run, and the line that it is in the journal.

In a sealed run an event has two halves: what everybody may read, ids, states, times and counts, is
its line; all else is sealed. What was made durable together is sealed together, which takes a
tenth of the time: the second halves of such a group stand in ``sealed`` at the end of its last
line. They open only with all lines of the group as they were written, so that none can be changed,
left out, or moved to another place or run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

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
_SPLIT = f',"{SEALED}":'.encode()
_END = b'"}\n'  # of no line that is not sealed: there the data stands last
_STEP = 64 * 1024


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


@attrs.frozen
class Halves:
    """The JSON of an event: what everybody may read, and what not; all is the first if plain."""

    head: bytes
    closed: bytes = b""

    @classmethod
    def of(cls, event: Event, payloads: Payloads) -> Halves:
        """Return an event's halves as a run keeps them."""
        if payloads.key_id is None:
            return cls(_text(event))
        opened: dict[str, Any] = {}
        closed: dict[str, Any] = {}
        for name, item in event.data.items():
            (opened if name in OPEN else closed)[name] = item
        fields = {name: getattr(event, name) for name in _NAMES}
        if event.trial is not None:
            fields["trial"] = payloads.name(event.trial)
        # Encoded at once, which takes half the time; nothing that is open holds the mark.
        text = _ENCODER.encode({**fields, "data": opened, SEALED: [event.trial, closed]})
        head, _, rest = text.encode("ascii").partition(_SPLIT)
        return cls(head + b"}", rest[:-1])


def write_group(group: Sequence[Halves], payloads: Payloads) -> list[bytes]:
    """Return the lines of events that are written together."""
    lines = [halves.head + b"\n" for halves in group]
    if payloads.key_id is not None:
        closed = b"[" + b",".join(halves.closed for halves in group) + b"]"
        kept = payloads.seal(closed, "events", b"".join(lines).decode("ascii"))
        lines[-1] = b"".join((lines[-1][:-2], _MARK, base64.b64encode(kept), _END))
    return lines


def ends_group(line: bytes, payloads: Payloads) -> bool:
    """Return whether a line is the last of those that were written together."""
    return payloads.key_id is None or line.endswith(_END)


def group_start(file: IO[bytes], at: int) -> int:
    """Return where the sealed group begins of which a line begins at a place of the journal."""
    later = b""
    while at > 0:
        size = min(at, _STEP)
        at -= size
        file.seek(at)
        data = file.read(size) + later[: len(_END) - 1]
        if (found := data.rfind(_END)) >= 0:
            return at + found + len(_END)
        later = data
    return 0


def read_group(lines: Sequence[bytes], payloads: Payloads) -> list[Event]:
    """Return the events that the lines of a group hold.

    Raises:
        IntegrityError: A line was changed, moved, left out, or is another run's.
        ValueError: A line holds no event.
    """
    if payloads.key_id is None:
        return [Event.from_line(line) for line in lines]
    before, mark, sealed = lines[-1].rpartition(_MARK)
    if not mark or not sealed.endswith(_END):
        raise ValueError("no sealed events")
    heads = [*lines[:-1], before + b"}\n"]
    kept = base64.b64decode(sealed[: -len(_END)], validate=True)
    closed = payloads.unseal(kept, "events", b"".join(heads).decode("ascii"))
    # Whoever sealed them has the key: they are what ``write_group`` made.
    return [_joined(head, *half) for head, half in zip(heads, json.loads(closed), strict=True)]


def _joined(head: bytes, trial: str | None, data: Mapping[str, Any]) -> Event:
    event = Event.from_line(head)
    return Event(
        seq=event.seq,
        time=event.time,
        monotonic=event.monotonic,
        type=event.type,
        run=event.run,
        trial=trial,
        attempt=event.attempt,
        data={**event.data, **data},
    )


def _text(event: Event) -> bytes:
    return _ENCODER.encode({name: getattr(event, name) for name in _NAMES}).encode("ascii")
