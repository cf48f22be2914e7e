"""Runs pytest in a fresh sandbox, to list tests or to run them, and reads what came of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers import sandboxed
from sandbox_sdk.experiments.scorers.base import SandboxMaker
from sandbox_sdk.values import CommandResult

TESTS = "tests"
SUBMISSION = "submission"
"""The two folders of the workspace; nothing of one is ever looked for in the other."""

_RUNNER = (Path(__file__).parent / "inside" / "pytest_runner.py").read_text("utf-8")
_WORKSPACE = "/workspace"
_REPORT: Mapping[str, fields.Reader] = {
    "ids": fields.list_of(fields.text, 100_000),
    "outcomes": fields.mapping_of(fields.text),
    "errors": fields.list_of(fields.text),
    "code": fields.whole(-(2**31)),
}


@attrs.frozen(kw_only=True)
class PytestReport:
    """What our plugin told at the end of a run of pytest.

    Attributes:
        ids: The tests, in order.
        outcomes: Test -> ``passed``, ``failed``, ``skipped`` or ``xfailed``.
        errors: Files that could not be collected, and why.
        code: Pytest's exit code.
    """

    ids: tuple[str, ...]
    outcomes: Mapping[str, str]
    errors: tuple[str, ...]
    code: int


@attrs.frozen(kw_only=True)
class PytestRun:
    """One run of pytest.

    Attributes:
        result: How its process ended, and what it wrote.
        report: What our plugin told; ``None`` if it came to no end, or was not told once.
    """

    result: CommandResult
    report: PytestReport | None


@attrs.frozen(kw_only=True)
class Pytest:
    """How pytest is run.

    Attributes:
        modules: Top-level modules that are the submission's.
        plugins: Plugins that pytest loads; no others.
        timeout: Seconds of one run, on the host's clock.
        sandbox: Settings of its sandbox, by ``create_sandbox``'s names.
    """

    modules: tuple[str, ...]
    plugins: tuple[str, ...]
    timeout: float
    sandbox: Mapping[str, Any]

    async def run(
        self,
        sandboxes: SandboxMaker | None,
        files: Mapping[str, str | bytes],
        *,
        collect: bool,
    ) -> PytestRun:
        """Run the tests of ``files``, or only list them, with stubs for the submission.

        Raises:
            SandboxError: The sandbox could not be had, or died.
        """
        secret = secrets.token_hex(16)
        asked = {
            "secret": secret,
            "collect": collect,
            "modules": self.modules,
            "plugins": self.plugins,
            "tests": f"{_WORKSPACE}/{TESTS}",
            "submission": f"{_WORKSPACE}/{SUBMISSION}",
        }
        async with sandboxed.fresh(sandboxes, files, self.sandbox) as sandbox:
            result = await sandboxed.run(
                sandbox,
                ("python", "-I", "-c", _RUNNER),
                stdin=json.dumps(asked),
                timeout=self.timeout,
            )
        return PytestRun(result=result, report=_read(result.stdout, secret))


def _read(stdout: str, secret: str) -> PytestReport | None:
    """Return the report if it stands there exactly once and is one."""
    told = [line for line in stdout.split("\n") if line.startswith(f"{secret} ")]
    try:
        (line,) = told
        found: Any = fields.read_fields(json.loads(line.partition(" ")[2]), "report", _REPORT)
        return PytestReport(**found)
    except (ValueError, RecursionError, TypeError):  # a ConfigError is a ValueError
        return None
