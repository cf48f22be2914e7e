"""The scorer that runs the submission alone and compares what it writes, out of its reach.

Every case has a fresh sandbox. Only the submission and the case's input enter it: the host holds
what should come out, and compares. So there is nothing inside to read, to edit or to skip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers import sandboxed
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    short,
    verdict,
)
from sandbox_sdk.parse import Faults, fault
from sandbox_sdk.values import CommandResult, Sample

Compare = Literal["lines", "exact", "tokens"]

_MOST_CASES = 1000


@attrs.frozen(kw_only=True)
class Case:
    """One run of the submission.

    Attributes:
        stdin: What it reads.
        args: Arguments after the command.
        stdout: What it must write. It never enters a sandbox.
    """

    stdin: str = attrs.field(default="", repr=False)
    args: tuple[str, ...] = ()
    stdout: str = attrs.field(repr=False)


_CASE: Mapping[str, fields.Reader] = {
    "stdin": fields.text,
    "args": fields.list_of(fields.text),
    "stdout": fields.text,
}


def read_cases(value: object, path: str) -> tuple[Case, ...]:
    """Return the cases of a target: a list of mappings, or a text that is the only output.

    Raises:
        ConfigError: It is none; all faults at once.
    """
    if isinstance(value, str):
        return (Case(stdout=fields.text(value, path)),)
    if not isinstance(value, list | tuple) or not value:
        raise fault(
            path, 'must be a text, or a list of cases such as {"stdin": "1", "stdout": "2"}'
        )
    return fields.list_of(_case, _MOST_CASES)(cast("Sequence[object]", value), path)


def _case(value: object, path: str) -> Case:
    found: dict[str, Any] = fields.read_fields(value, path, _CASE)
    if "stdout" not in found:
        raise fault(f"{path}.stdout", "is required: what the submission must write")
    return Case(**found)


READERS: Mapping[str, fields.Reader] = {
    "command": sandboxed.read_command,
    "file": sandboxed.read_path,
    "content": fields.word("code", "output"),
    "cases": read_cases,
    "compare": fields.word("lines", "exact", "tokens"),
    "tolerance": fields.number(0),
    "credit": fields.word("all", "share"),
    "timeout": fields.number(0, 10**5, above=True),
    "sandbox": sandboxed.read_sandbox,
}
"""The fields of ``io``."""


def faults_of(found: Mapping[str, Any], path: str) -> Faults:
    """Return the faults of fields that do not go together."""
    faults = Faults()
    if "tolerance" in found and found.get("compare") != "tokens":
        faults.add(f"{path}.tolerance", 'needs "compare": "tokens"')
    if isinstance(found.get("command"), str):
        cases: tuple[Case, ...] = found.get("cases", ())
        if any(case.args for case in cases):
            faults.add(f"{path}.command", "must be a list where cases have arguments")
    return faults


@attrs.frozen(kw_only=True)
class IOScorer:
    """Runs the submission once for each case and compares its standard output.

    Attributes:
        name: Its name.
        command: What runs it; a case's ``args`` follow.
        file: Where the output is put as a file, unless an artifact is that file.
        content: ``code`` puts the output's last fenced block there, ``output`` all of it.
        cases: Inputs and what must come out; by default the sample's target.
        compare: ``lines`` ignores white space at the ends of lines and of the output, ``exact``
            nothing, ``tokens`` all white space.
        tolerance: Two numbers as tokens may differ by this.
        credit: ``all`` is 1 only if every case is right and ends at the first that is not;
            ``share`` is the share of right ones.
        timeout: Seconds of one case, on the host's clock.
        sandbox: Settings of its sandboxes, by ``create_sandbox``'s names.
    """

    name: str
    command: str | tuple[str, ...] = ("python", "solution.py")
    file: str = "solution.py"
    content: sandboxed.Content = "code"
    cases: tuple[Case, ...] | None = attrs.field(default=None, repr=False)
    compare: Compare = "lines"
    tolerance: float = 0.0
    credit: Literal["all", "share"] = "all"
    timeout: float = 10.0
    sandbox: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    needs_sandbox: bool = attrs.field(default=True, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        settings = attrs.asdict(self, filter=lambda field, _: field.init and field.name != "name")
        return scorer_digest("io", 1, **settings)

    def check(self, sample: Sample, path: str) -> None:
        """Go on if there are cases.

        Raises:
            ConfigError: There are none, or one has arguments and the command is a line for bash.
        """
        cases = self._cases(sample, f"{path}.target")
        if isinstance(self.command, str) and any(case.args for case in cases):
            raise fault(f"{path}.target", 'has cases with "args": make the command a list')

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return 1 if every case is right, or the share of those that are.

        Raises:
            SandboxError: A sandbox could not be had, or died.
        """
        files = sandboxed.files_of(submission, {}, self.file, self.content)
        if (reason := sandboxed.unusable(files)) is not None:
            return verdict(self, 0, label="bad_artifacts", explanation=reason)
        cases = self._cases(submission.sample, "sample.target")
        right = ran = 0
        first: tuple[int, str, CommandResult] | None = None
        for index, case in enumerate(cases):
            label, result = await self._run(case, files, sandboxes)
            ran += 1
            if label is None:
                right += 1
                continue
            first = first or (index, label, result)
            if self.credit == "all":
                break
        counts = {"right": right, "ran": ran, "cases": len(cases)}
        if first is None:
            return verdict(self, 1, metadata=counts)
        index, label, result = first
        value = right / len(cases) if self.credit == "share" else 0.0
        # What it wrote is kept, what it should have written is not: scores are shown to people
        # who tune prompts, and whatever they copy into one reaches a model.
        return verdict(
            self,
            value,
            label="partial" if value else label,
            answer=result.stdout,
            explanation=short(f"case {index}: {label}; {result.ended}\n{result.stderr}".strip()),
            metadata=counts,
        )

    def _cases(self, sample: Sample, path: str) -> tuple[Case, ...]:
        return read_cases(sample.target, path) if self.cases is None else self.cases

    async def _run(
        self,
        case: Case,
        files: Mapping[str, str | bytes],
        sandboxes: SandboxMaker | None,
    ) -> tuple[str | None, CommandResult]:
        command = self.command if isinstance(self.command, str) else (*self.command, *case.args)
        async with sandboxed.fresh(sandboxes, files, self.sandbox) as sandbox:
            result = await sandboxed.run(sandbox, command, stdin=case.stdin, timeout=self.timeout)
        label = sandboxed.label_of(result)
        if label is None and not self._equal(result, case.stdout):
            label = "wrong_output"
        return label, result

    def _equal(self, result: CommandResult, wanted: str) -> bool:
        if self.compare == "exact":
            return result.stdout_bytes == wanted.encode()
        if self.compare == "lines":
            return _lines(result.stdout) == _lines(wanted)
        found, tokens = result.stdout.split(), wanted.split()
        return len(found) == len(tokens) and all(map(self._alike, found, tokens))

    def _alike(self, found: str, wanted: str) -> bool:
        if found == wanted:
            return True
        if not self.tolerance:
            return False
        try:
            distance = abs(float(found) - float(wanted))
        except ValueError:
            return False
        return math.isfinite(distance) and distance <= self.tolerance


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]
