"""What is told of an event, and the line of the log that it becomes: CloudEvents 1.0 in JSON.

Two attributes make the chain: ``sequence``, the line's number from 1, and ``previous``, the
SHA-256 of the line before, its newline included. Contents stand there as their SHA-256 only.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Self, cast

import attrs

from sandbox_sdk.errors import IntegrityError

NOTHING_BEFORE = "0" * 64
"""What the first line of a log has as ``previous``."""

SEGMENT = "sandbox-sdk.audit.segment"
CHECKPOINT = "sandbox-sdk.audit.checkpoint"
PRUNED = "sandbox-sdk.audit.pruned"
RECOVERED = "sandbox-sdk.audit.recovered"
DROPPED = "sandbox-sdk.audit.dropped"

LARGEST_LINE = 1024 * 1024
"""Bytes of the longest line that is read."""

Content = bytes | str | Sequence[str] | Mapping[str, bytes]

_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_LONGEST_TEXT = 1024
_LONGEST_LIST = 64
_SEQUENCE_DIGITS = 20
_REDACTED = "[redacted]"


@attrs.frozen(kw_only=True)
class Actor:
    """Who did something.

    Attributes:
        method: How that is known: ``local`` is the operating system's word.
        name: The user's name, or the subject that a server found.
        uid: The user's id, where it is one of this machine.
        pid: The process, where it is one of this machine.
        tenant: Whose sandboxes they are, where a server has several.
    """

    method: str
    name: str
    uid: int | None = None
    pid: int | None = None
    tenant: str | None = None

    @staticmethod
    def local() -> Actor:
        """Return this process and its user."""
        return _local(os.geteuid(), os.getpid())

    def to_json(self) -> dict[str, object]:
        """Return what is known of it."""
        known = {name: getattr(self, name) for name in ("method", "name", "uid", "pid", "tenant")}
        return {name: value for name, value in known.items() if value is not None}


# Any: an event's data is JSON, whose shape its type decides.
@attrs.frozen(kw_only=True)
class Entry:
    """An event that is to become a line.

    Attributes:
        type: What happened, for example ``sandbox-sdk.sandbox.create.began``.
        subject: On what: a sandbox's id, mostly.
        data: What else there is to say; texts are cut after 1,024 characters.
        content: What it was about and is told as a digest only; hashed by whoever writes the line.
        time: Seconds since the epoch.
    """

    type: str
    subject: str = ""
    data: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    content: Content | None = attrs.field(default=None, repr=False)
    time: float = attrs.field(factory=time.time)

    def to_line(
        self, *, origin: str, sequence: int, previous: str, secrets: Collection[str] = ()
    ) -> bytes:
        """Return the line: ASCII, and its last byte is the only newline."""
        number = f"{sequence:0{_SEQUENCE_DIGITS}}"
        when = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")
        data = dict(self.data)
        if self.content is not None:
            data |= digest(self.content)
        fields = {
            "specversion": "1.0",
            "id": number,
            "source": origin,
            "type": self.type,
            "time": when.replace("+00:00", "Z"),
            **({"subject": _clean(self.subject, secrets)} if self.subject else {}),
            "sequence": number,
            "previous": previous,
            "datacontenttype": "application/json",
            "data": _clean(data, secrets),
        }
        return _ENCODER.encode(fields).encode("ascii") + b"\n"


@attrs.frozen(kw_only=True)
class Line:
    """A line as it is read.

    Attributes:
        source: The log's name.
        sequence: Its number.
        previous: The SHA-256 of the line before, in hex.
        type: What happened.
        time: When, in UTC.
        subject: On what; empty if on nothing in particular.
        data: What else there is to say.
    """

    source: str
    sequence: int
    previous: str
    type: str
    time: str
    subject: str
    data: Mapping[str, Any]

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Return what a line says.

        Raises:
            IntegrityError: It is no line that was written here.
        """
        try:
            parsed: Any = json.loads(line)
            match parsed:
                case {
                    "specversion": "1.0",
                    "id": str(id_),
                    "source": str(source),
                    "type": str(type_),
                    "time": str(when),
                    "sequence": str(sequence),
                    "previous": str(previous),
                    "data": dict(),
                    **rest,
                } if id_ == sequence and len(sequence) == _SEQUENCE_DIGITS and line[-1:] == b"\n":
                    return cls(
                        source=source,
                        sequence=int(sequence),
                        previous=previous,
                        type=type_,
                        time=when,
                        subject=str(rest.get("subject", "")),
                        data=parsed["data"],
                    )
                case _:
                    pass
        except (ValueError, RecursionError):
            pass
        raise IntegrityError("is no line of an audit log")


def line_hash(line: bytes) -> str:
    """Return what the next line has as ``previous``."""
    return hashlib.sha256(line).hexdigest()


def digest(content: Content) -> dict[str, object]:
    """Return the SHA-256 and size of what is told as a digest only.

    A text is taken as UTF-8, a list of texts as JSON, and files as a JSON object of their digests.
    """
    if isinstance(content, str):
        data = content.encode("utf-8", "surrogatepass")
    elif isinstance(content, bytes):
        data = content
    elif isinstance(content, Mapping):
        files = {path: hashlib.sha256(file).hexdigest() for path, file in sorted(content.items())}
        return {"files_sha256": hashlib.sha256(_ENCODER.encode(files).encode()).hexdigest()}
    else:
        data = _ENCODER.encode(list(content)).encode()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


@cache
def _local(uid: int, pid: int) -> Actor:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user often has no entry
        name = f"uid {uid}"
    return Actor(method="local", name=name, uid=uid, pid=pid)


def _clean(value: Any, secrets: Collection[str]) -> Any:
    """Return JSON without known secrets, its texts and lists cut to a length that fits a line."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, _REDACTED)
        return value[:_LONGEST_TEXT]
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Actor):
        return _clean(value.to_json(), secrets)
    if isinstance(value, dict):
        pairs = list(cast("dict[object, Any]", value).items())[:_LONGEST_LIST]
        return {_clean(str(key), secrets): _clean(each, secrets) for key, each in pairs}
    return [_clean(each, secrets) for each in cast("Sequence[Any]", value)[:_LONGEST_LIST]]
