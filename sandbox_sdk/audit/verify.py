"""Whether a log is as it was written, and if not, which line is the first that is wrong.

Needs the files and the public key, no secret. Whoever wrote the files may be anybody: each is read
line by line, within bounds. What can be found out depends on what is known from elsewhere:

- the chain finds what was edited, removed, added or moved, unless all that follows was made anew;
- the checkpoints find that, too, as nobody else can sign;
- the newest checkpoint, beside the log, in the state database or kept by you, finds a cut tail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import attrs

from sandbox_sdk.audit.events import (
    CHECKPOINT,
    LARGEST_LINE,
    NOTHING_BEFORE,
    PRUNED,
    SEGMENT,
    Line,
    line_hash,
)
from sandbox_sdk.audit.merkle import Tree
from sandbox_sdk.audit.notes import LARGEST_NOTE, Checkpoint, Verifier
from sandbox_sdk.audit.segments import CHECKPOINT_FILE, segment_paths
from sandbox_sdk.errors import IntegrityError

Status = Literal["verified", "unpinned", "unsigned", "changed"]

_TEXT = {
    "verified": "every line is as a trusted key signed it",
    "unpinned": "every line is as the key found beside the log signed it: ask its owner for the "
    "public key, and verify with that",
    "unsigned": "the lines are a chain, but no checkpoint covers them: anybody may have written it",
}


@attrs.frozen(kw_only=True)
class AuditVerification:
    """What ``verify_log`` found.

    Attributes:
        folder: The folder.
        status: ``verified``: all is as a trusted key signed it. ``unpinned``: all is as the key
            beside the log signed it, which proves nothing about who that was. ``unsigned``: no
            checkpoint covers it yet. ``changed``: something is not as it was written.
        first: The number of the first line that is there; larger than 1 where retention removed
            some, as a line of the log says.
        last: The number of the last line that is there, or that was looked at.
        signed: How many lines, from the first ever written, the newest checkpoint covers.
        wrong: The number of the first line that is not as it was written, or is not there.
        place: Where it is or should be: a file, and a line in it from 1.
        detail: One sentence for people.
    """

    folder: Path
    status: Status
    first: int
    last: int
    signed: int
    wrong: int | None = None
    place: str = ""
    detail: str

    @property
    def ok(self) -> bool:
        """Whether all is as a trusted key signed it."""
        return self.status == "verified"


class _Wrong(Exception):
    """A line that is not as it was written: its number, and what is the matter."""


@attrs.frozen
class _Found:
    """A line with where it stands; ``line`` is ``None`` if it is none that was written here."""

    raw: bytes
    path: Path
    number: int
    first: bool
    line: Line | None


def verify_log(
    folder: Path,
    trusted: Collection[Verifier] = (),
    *,
    pinned: bool = True,
    notes: Sequence[str] = (),
    known: Sequence[Checkpoint] = (),
) -> AuditVerification:
    """Return whether a log is as it was written. Blocks on the disk.

    Args:
        folder: The folder of its segments.
        trusted: The keys of which one must have signed.
        pinned: Whether these keys are known from elsewhere than beside the log.
        notes: Signed checkpoints that were kept elsewhere.
        known: Checkpoints that are trusted as they are: those of the state database.

    Raises:
        IntegrityError: There is no log, or a checkpoint in ``notes`` is not signed by those keys.
    """
    kept = [Checkpoint.parse(note, trusted) for note in notes]
    paths = segment_paths(folder)
    if not paths and not kept and not known:
        raise IntegrityError(f"{folder} holds no audit log to verify", path=str(folder))
    return _Verifying(folder, paths, trusted, pinned, [*kept, *known]).run()


class _Verifying:
    """One verification."""

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path],
        trusted: Collection[Verifier],
        pinned: bool,
        known: Sequence[Checkpoint],
    ) -> None:
        self._folder = folder
        self._paths = paths
        self._trusted = trusted
        self._pinned = pinned
        self._known = list(known)
        self._tree = Tree()
        self._previous = NOTHING_BEFORE
        self._origin = ""
        self._first = 1
        self._signed = 0
        self._noted = False
        self._pruned: tuple[int, str] = (0, "")
        self._stood = ""  # the root before the first line that is there, where some are gone
        self._place: dict[str, object] = {}

    def run(self) -> AuditVerification:
        """Look at everything, in order."""
        try:
            self._read_newest()
            self._read_lines()
            self._check_end()
        except _Wrong as wrong:
            number, what = wrong.args
            return self._result("changed", what, number)
        status: Status = "verified" if self._pinned else "unpinned"
        if not self._signed:
            status = "unsigned"
        detail = _TEXT[status]
        if self._signed and (rest := self._tree.size - self._signed):
            detail += f"; the last {rest} wait for the next checkpoint"
        return self._result(status, detail)

    def _result(self, status: Status, detail: str, wrong: int | None = None) -> AuditVerification:
        return AuditVerification(
            folder=self._folder,
            status=status,
            first=self._first,
            last=self._tree.size,
            signed=self._signed,
            wrong=wrong,
            place="" if wrong is None else self._find(wrong),
            detail=detail,
        )

    def _read_newest(self) -> None:
        """Read the checkpoint beside the log, which must be there once one was made."""
        try:
            with (self._folder / CHECKPOINT_FILE).open("rb") as file:
                note = file.read(LARGEST_NOTE).decode("utf-8", "replace")
        except FileNotFoundError:
            return
        try:
            self._known.append(Checkpoint.parse(note, self._trusted))
        except IntegrityError as error:
            raise _Wrong(None, f"the file {CHECKPOINT_FILE}: {error.message}") from None
        self._noted = True

    def _read_lines(self) -> None:
        found = iter(_read(self._paths))
        this = next(found, None)
        while this is not None:
            if not this.raw.endswith(b"\n") and this.path == self._paths[-1]:
                return  # half a line, as a crash leaves it; the next event cuts it off
            following = next(found, None)
            self._check_chain(this, following)
            if this.line is None:
                raise _Wrong(self._tree.size + 1, "is no line of an audit log")
            self._check_meaning(this, this.line)
            self._tree.append(this.raw)
            self._previous = line_hash(this.raw)
            self._check_known()
            this = following

    def _check_chain(self, this: _Found, following: _Found | None) -> None:
        """Compare a line with the one before it."""
        line, number = this.line, self._tree.size + 1
        if line is None:
            raise _Wrong(number, "is no line of an audit log")
        if this.first and number == 1 and line.sequence != 1:
            if line.sequence != int(this.path.stem):
                number = int(this.path.stem)
                raise _Wrong(number, f"is not there: line {line.sequence} stands in its place")
            self._begin_later(line)
            number = self._tree.size + 1
        if line.sequence != number:
            raise _Wrong(number, f"is not there: line {line.sequence} stands in its place")
        if number == self._first and not self._origin:
            self._origin = line.source
        if this.first != (line.type == SEGMENT) or (this.first and int(this.path.stem) != number):
            raise _Wrong(number, "does not stand where segments begin")
        if line.previous != self._previous:
            # The line before was changed, unless this one was: then it is not what the next says.
            if following is None or following.line is None:
                intact = not self._is_covered(line)
            else:
                intact = following.line.previous == line_hash(this.raw)
            if intact and number > self._first:
                raise _Wrong(number - 1, f"is not what line {number} says it was")
            raise _Wrong(number, "does not follow the line before it")
        if line.source != self._origin:
            raise _Wrong(number, "is of another log")

    def _is_covered(self, line: Line) -> bool:
        """Return whether what comes before a line is as a checkpoint says that it was."""
        covering = list(self._known)
        if line.type == CHECKPOINT:
            with contextlib.suppress(IntegrityError):
                covering.append(Checkpoint.parse(str(line.data.get("note")), self._trusted))
        now = (self._tree.size, self._tree.root)
        return any((each.size, each.root) == now for each in covering)

    def _begin_later(self, line: Line) -> None:
        """Take from the first line that is there how the log stood before it."""
        try:
            frontier = [bytes.fromhex(each) for each in line.data["frontier"]]
            self._tree = Tree(line.sequence - 1, frontier)
        except (ValueError, KeyError, TypeError):
            raise _Wrong(1, "is not there, and no segment begins after it") from None
        self._first, self._previous = line.sequence, line.previous
        self._signed = 0
        self._stood = self._tree.root.hex()

    def _check_meaning(self, this: _Found, line: Line) -> None:
        """Compare what a line says of the log with the log."""
        number = self._tree.size + 1
        if line.type == SEGMENT:
            if line.data.get("frontier") != [each.hex() for each in self._tree.frontier]:
                raise _Wrong(number, "says that other lines were before it")
        elif line.type == CHECKPOINT:
            self._check_note(number, line.data.get("note"))
        elif line.type == PRUNED:
            match line.data:
                case {"through": int(through), "root": str(root)}:
                    self._pruned = max(self._pruned, (through, root))
                case _:
                    raise _Wrong(number, "does not say what was removed")

    def _check_note(self, number: int, note: object) -> None:
        try:
            said = Checkpoint.parse(str(note), self._trusted)
        except IntegrityError as error:
            raise _Wrong(number, f"is no checkpoint of a trusted key: {error.message}") from None
        if (said.origin, said.size, said.root) != (
            self._origin,
            self._tree.size,
            self._tree.root,
        ):
            raise self._differs(said.size)
        self._signed = self._tree.size

    def _check_known(self) -> None:
        """Compare the log with the checkpoints from elsewhere that are of this size."""
        size = self._tree.size
        for each in self._known:
            if each.size == size:
                if each.root != self._tree.root or each.origin != self._origin:
                    raise self._differs(size)
                self._signed = size

    def _check_end(self) -> None:
        for each in self._known:
            if self._origin and each.origin != self._origin:
                raise _Wrong(self._first, f"is of another log than {each.origin}")
            if each.size > self._tree.size:
                missing = self._tree.size + 1
                raise _Wrong(missing, f"is not there: the log was cut, and had {each.size} lines")
        if self._signed and not self._noted:
            raise _Wrong(None, f"the file {CHECKPOINT_FILE} was removed")
        through, root = self._pruned
        said = through >= self._first or (through, root) == (self._first - 1, self._stood)
        if self._first > 1 and not said:
            raise _Wrong(1, f"is not there, and no line says that all before {self._first} went")

    def _differs(self, size: int) -> _Wrong:
        """Return what is wrong where a checkpoint differs: some line since the one before."""
        first = max(self._signed + 1, self._first)
        upto = min(max(size, first), self._tree.size)
        what = (
            "is not what was signed" if upto <= first else f"or one up to {upto} is not as signed"
        )
        return _Wrong(first, f"{what}: the chain was made anew after it")

    def _find(self, number: int | None) -> str:
        """Return the file and line where a line of the log is, or should be."""
        if number is None:
            return CHECKPOINT_FILE
        before = [path for path in self._paths if int(path.stem) <= number] or self._paths[:1]
        return f"{before[-1].name}:{max(1, number - int(before[-1].stem) + 1)}" if before else ""


def _read(paths: Sequence[Path]) -> Iterator[_Found]:
    """Yield the lines of all segments."""
    for path in paths:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LARGEST_LINE):
                number += 1
                try:
                    line = Line.parse(raw)
                except IntegrityError:
                    line = None
                yield _Found(raw, path, number, number == 1, line)
