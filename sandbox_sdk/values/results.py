"""What commands, code and file operations give back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Literal

import attrs

from sandbox_sdk.errors import CallTimeout, CommandFailed, ProtocolError
from sandbox_sdk.values.ending import Ended, EndKind


@attrs.frozen(kw_only=True)
class CommandResult:
    """What a command did.

    Attributes:
        ended: How it ended.
        stdout_bytes: What it wrote to standard output, as far as it was kept.
        stderr_bytes: The same for standard error.
        duration: Seconds from start to end, on the host's clock.
    """

    ended: Ended
    stdout_bytes: bytes = attrs.field(default=b"", repr=False)
    stderr_bytes: bytes = attrs.field(default=b"", repr=False)
    duration: float = 0.0

    @property
    def stdout(self) -> str:
        """Standard output as UTF-8 text, undecodable bytes replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as UTF-8 text, undecodable bytes replaced."""
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it exited with code 0."""
        return self.ended.kind is EndKind.OK

    @property
    def exit_code(self) -> int | None:
        """The exit code, where it exited by itself."""
        return self.ended.exit_code

    def check(self) -> CommandResult:
        """Return this result if the command ended ``ok``.

        Raises:
            CallTimeout: It ran longer than the call's ``timeout``.
            CommandFailed: It ended in any other way but ``ok``.
        """
        _check("command", self.ended, self.stdout, self.stderr)
        return self


@attrs.frozen(kw_only=True)
class CodeError:
    """An exception that ended code.

    Attributes:
        name: The exception's class, for example ``ValueError``.
        message: Its text.
        traceback: The whole traceback as text.
    """

    name: str
    message: str
    traceback: str = ""


@attrs.frozen(kw_only=True)
class MimeBundle:
    """One value that code showed, in each form it has, under the MIME types of notebooks.

    All of it is the word of the code inside. HTML and SVG are as that code wrote them: show them
    only where a script in them can do no harm.

    Attributes:
        data: MIME type -> content: text, base64 for bytes, JSON as its text.
        is_value: Whether it is the last expression's value, not displayed on the way.
    """

    data: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    is_value: bool = False

    @property
    def text(self) -> str | None:
        """Its ``text/plain``, if it has one."""
        return self.data.get("text/plain")

    @property
    def html(self) -> str | None:
        """Its ``text/html``, if it has one."""
        return self.data.get("text/html")

    @property
    def png(self) -> bytes | None:
        """Its ``image/png`` as bytes, if it has one.

        Raises:
            ProtocolError: The code inside gave something that is no base64.
        """
        return self.decode("image/png")

    def decode(self, mime: str) -> bytes | None:
        """Return the bytes of a form that is kept as base64, or ``None`` if there is none.

        Raises:
            ProtocolError: The code inside gave something that is no base64.
        """
        content = self.data.get(mime)
        if content is None:
            return None
        try:
            return base64.b64decode("".join(content.split()), validate=True)
        except ValueError as error:
            raise ProtocolError(f"the {mime} that the code gave is no base64: {error}") from error

    def json(self, mime: str = "application/json") -> object:
        """Return what a form that is JSON holds, or ``None`` if there is none.

        Raises:
            ProtocolError: The code inside gave something that is no JSON, or too deep.
        """
        content = self.data.get(mime)
        if content is None:
            return None
        try:
            found: object = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"the {mime} that the code gave is no JSON: {error}") from error
        return found


@attrs.frozen(kw_only=True)
class CodeResult:
    """What a piece of code did.

    Attributes:
        ended: How it ended; code that raised ends ``nonzero``.
        stdout: What it wrote to standard output, undecodable bytes replaced.
        stderr: The same for standard error.
        results: What it showed: values displayed, figures left open, then its value.
        omitted: What it would have shown besides, but was too much or failed; a phrase each.
        error: The exception that ended it, where one did.
        duration: Seconds from start to end, on the host's clock.
    """

    ended: Ended
    stdout: str = attrs.field(default="", repr=False)
    stderr: str = attrs.field(default="", repr=False)
    results: tuple[MimeBundle, ...] = ()
    omitted: tuple[str, ...] = ()
    error: CodeError | None = None
    duration: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without an exception."""
        return self.ended.kind is EndKind.OK

    @property
    def value(self) -> MimeBundle | None:
        """The last expression's value, or ``None`` if there was none."""
        return self.results[-1] if self.results and self.results[-1].is_value else None

    @property
    def text(self) -> str | None:
        """The last expression's value as text, or ``None`` if there was none."""
        return self.value.text if self.value else None

    @property
    def png(self) -> bytes | None:
        """The last picture that it showed as PNG, or ``None`` if there was none.

        Raises:
            ProtocolError: The code inside gave something that is no base64.
        """
        pictures = [bundle for bundle in self.results if "image/png" in bundle.data]
        return pictures[-1].png if pictures else None

    def check(self) -> CodeResult:
        """Return this result if the code ended ``ok``.

        Raises:
            CallTimeout: It ran longer than the call's ``timeout``.
            CommandFailed: It ended in any other way but ``ok``.
        """
        _check("code", self.ended, self.stdout, self.stderr)
        return self


@attrs.frozen(kw_only=True)
class FileInfo:
    """One file or folder inside a sandbox.

    Attributes:
        path: Absolute path inside.
        kind: What it is.
        size_bytes: Size of a file's content.
        mode: Permission bits.
        modified_at: Seconds since the epoch.
        target: Where a symbolic link points.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "other"]
    size_bytes: int = 0
    mode: int = 0
    modified_at: float = 0.0
    target: str | None = None


@attrs.frozen(kw_only=True)
class FileEvent:
    """One change below a watched folder.

    Attributes:
        kind: What happened. ``started`` comes first; ``overflow`` tells that events were lost, or
            that a folder cannot be followed: look at what is below ``path`` anew.
        path: Absolute path inside, after a move the new one.
        old_path: Where it was before a move.
        is_folder: Whether it is a folder.
    """

    kind: Literal["started", "created", "modified", "moved", "removed", "overflow"]
    path: str
    old_path: str | None = None
    is_folder: bool = False


@attrs.frozen(kw_only=True)
class Artifact:
    """Bytes kept by their digest.

    Attributes:
        path: Path relative to the workspace, or the name the SDK gave them.
        size_bytes: Their length.
        sha256: Their digest, in hexadecimal.
        media_type: Guessed from the name.
    """

    path: str
    size_bytes: int
    sha256: str
    media_type: str = "application/octet-stream"


@attrs.frozen(kw_only=True)
class Collected:
    """What left a workspace, and what was left behind and why.

    Attributes:
        artifacts: The files that were copied.
        skipped: Path -> the reason it was not.
    """

    artifacts: tuple[Artifact, ...] = ()
    skipped: Mapping[str, str] = attrs.field(factory=dict[str, str])


def _check(what: str, ended: Ended, stdout: str, stderr: str) -> None:
    if ended.kind is EndKind.OK:
        return
    tail = (stderr or stdout).strip()[-500:]
    message = f"the {what} ended {ended}" + (f"; its last output: {tail}" if tail else "")
    if ended.kind is EndKind.TIMEOUT and ended.limit == "timeout":
        message += "; pass a larger timeout= to allow it more time"
        raise CallTimeout(message, ended=ended, stdout=stdout, stderr=stderr)
    raise CommandFailed(message, ended=ended, stdout=stdout, stderr=stderr)
