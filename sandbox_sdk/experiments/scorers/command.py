"""The scorer that runs a command of the user's over the submission, in a fresh sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers import sandboxed
from sandbox_sdk.experiments.scorers.answers import score_of
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    unscored,
    verdict,
)
from sandbox_sdk.parse import Faults
from sandbox_sdk.values import CommandResult, Sample

TARGET_FILE = "target.json"
"""Where the target stands, if the command is given it."""

_NOT_RUN = (126, 127)  # bash's own: found but not executable, not found

READERS: Mapping[str, fields.Reader] = {
    "command": sandboxed.read_command,
    "files": sandboxed.read_files,
    "file": sandboxed.read_path,
    "content": fields.word("code", "output"),
    "verdict_from": fields.word("exit_code", "stdout"),
    "give_target": fields.flag,
    "timeout": fields.number(0, 10**5, above=True),
    "sandbox": sandboxed.read_sandbox,
}
"""The fields of ``command``."""


def faults_of(found: Mapping[str, Any], path: str) -> Faults:
    """Return the faults of fields that do not go together."""
    faults = Faults()
    if "command" not in found:
        faults.add(f"{path}.command", "is required")
    return faults


@attrs.frozen(kw_only=True)
class CommandScorer:
    """Runs a command in a sandbox with the submission's artifacts and the scorer's files.

    Attributes:
        name: Its name.
        command: What is run in the workspace.
        files: Path -> content of the scorer's own files; no artifact replaces one.
        file: Where the output is put as a file, unless an artifact is that file.
        content: ``output`` puts all of it there, ``code`` its last fenced block.
        verdict_from: ``exit_code`` is 1 for code 0 and 0 for others; ``stdout`` is what the last
            line of standard output says as JSON: a number, or ``{"value": ..., "label": ...}``.
        give_target: Put the target into the sandbox, as ``target.json``. Code of the submission
            that the command runs can then read it.
        timeout: Seconds, on the host's clock.
        sandbox: Settings of its sandbox, by ``create_sandbox``'s names.
    """

    name: str
    command: str | tuple[str, ...]
    files: Mapping[str, str | bytes] = attrs.field(factory=dict[str, str | bytes], repr=False)
    file: str = "output.txt"
    content: sandboxed.Content = "output"
    verdict_from: Literal["exit_code", "stdout"] = "exit_code"
    give_target: bool = False
    timeout: float = 60.0
    sandbox: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    needs_sandbox: bool = attrs.field(default=True, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        settings = attrs.asdict(self, filter=lambda field, _: field.init and field.name != "name")
        settings["files"] = sandboxed.files_digest(self.files)
        return scorer_digest("command", 1, **settings)

    def check(self, sample: Sample, path: str) -> None:
        """Go on: a sample without a target gives ``null``."""

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return what the command says.

        A limit that ends it is a wrong answer where the exit code counts, since a submission that
        is run may reach it at will; a command that is not found, or says nothing that is a
        score, scores nothing.

        Raises:
            SandboxError: The sandbox could not be had, or died.
        """
        own = dict(self.files)
        if self.give_target:
            own[TARGET_FILE] = json.dumps(submission.sample.target)
        files = sandboxed.files_of(submission, own, self.file, self.content)
        if (reason := sandboxed.unusable(files)) is not None:
            return verdict(self, 0, label="bad_artifacts", explanation=reason)
        async with sandboxed.fresh(sandboxes, files, self.sandbox) as sandbox:
            result = await sandboxed.run(sandbox, self.command, timeout=self.timeout)
        label = sandboxed.label_of(result)
        said = f"{result.ended}\n{result.stderr or result.stdout}".strip()
        if result.exit_code in _NOT_RUN:
            return unscored(self, f"the command could not be run: {said}")
        if label not in (None, "failed"):
            return verdict(self, 0, label=label, explanation=said)
        if self.verdict_from == "exit_code":
            return verdict(
                self, label is None, explanation=said, metadata={"exit_code": result.exit_code}
            )
        return self._said(result, said)

    def _said(self, result: CommandResult, said: str) -> Score:
        lines = result.stdout.strip().splitlines()
        try:
            value = json.loads(lines[-1]) if lines else None
        except (ValueError, RecursionError):
            return unscored(self, f"the last line of its output is no JSON: {said}")
        return score_of(self, value, said)
