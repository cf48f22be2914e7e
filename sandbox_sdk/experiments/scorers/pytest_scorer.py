"""The scorer that runs tests over the submission with pytest, in a fresh sandbox.

A verdict counts only if our plugin told the end of every test of a list that was made before the
submission was there. So tests that are skipped, left out, or cut short by an early exit are no
passes. Code under test runs in pytest's own process, though: it can read the tests, and whoever
sets out to can make them pass. Where that matters use ``io``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, cast

import anyio
import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.records.digests import digest
from sandbox_sdk.experiments.scorers import sandboxed
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    unscored,
    verdict,
)
from sandbox_sdk.experiments.scorers.pytest_runs import (
    SUBMISSION,
    TESTS,
    Pytest,
    PytestReport,
    PytestRun,
)
from sandbox_sdk.parse import describe, fault
from sandbox_sdk.values import Sample

Tests = Mapping[str, str | bytes]

_LISTS_KEPT = 256  # lists of tests; samples often have tests of their own
_SHOWN = 20  # tests that a score names


def read_tests(value: object, path: str) -> Tests:
    """Return test files: path -> content, or a text that is the only file.

    Raises:
        ConfigError: They are none.
    """
    said = describe(value)
    if isinstance(value, str):
        return {"test_submission.py": fields.filled_text(value, path)}
    if not isinstance(value, Mapping) or not value:
        raise fault(path, f"must be the text of a test file, or paths and their texts, not {said}")
    return sandboxed.read_files(cast("Tests", value), path)


def _module(value: object, path: str) -> str:
    found = fields.line(value, path)
    if not found.isidentifier():
        raise fault(path, f"must be the name of a top-level module, not {describe(value)}")
    return found


def _plugin(value: object, path: str) -> str:
    found = fields.line(value, path)
    if not all(part.isidentifier() for part in found.split(".")):
        raise fault(path, f"must be the name of a module, not {describe(value)}")
    return found


READERS: Mapping[str, fields.Reader] = {
    "tests": read_tests,
    "file": sandboxed.read_path,
    "content": fields.word("code", "output"),
    "modules": fields.one_or_more(_module),
    "plugins": fields.one_or_more(_plugin),
    "credit": fields.word("all", "share"),
    "timeout": fields.number(0, 10**5, above=True),
    "sandbox": sandboxed.read_sandbox,
}
"""The fields of ``pytest``."""


@attrs.define
class _Listing:
    """The ids of some tests, once they are known; the lock is held while they are listed."""

    ids: tuple[str, ...] | None = None
    lock: anyio.Lock = attrs.field(factory=anyio.Lock)


@attrs.frozen(kw_only=True)
class PytestScorer:
    """Runs tests over the submission.

    Attributes:
        name: Its name.
        tests: Path -> content of the tests and what they need, ``conftest.py`` and ``pytest.ini``
            included; by default the sample's target.
        file: Where the output is put as a file, unless an artifact is that file.
        content: ``code`` puts the output's last fenced block there, ``output`` all of it.
        modules: Top-level modules that are the submission's; by default the one of ``file``.
        plugins: Plugins of pytest to load; no others are.
        credit: ``all`` is 1 only if every test passes, ``share`` the share of those that do.
        timeout: Seconds of one run, on the host's clock.
        sandbox: Settings of its sandbox, by ``create_sandbox``'s names. It must have pytest, so
            at level ``high`` name it in ``packages``.
    """

    name: str
    tests: Tests | None = attrs.field(default=None, repr=False)
    file: str = "solution.py"
    content: sandboxed.Content = "code"
    modules: tuple[str, ...] | None = None
    plugins: tuple[str, ...] = ()
    credit: Literal["all", "share"] = "all"
    timeout: float = 60.0
    sandbox: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    needs_sandbox: bool = attrs.field(default=True, init=False)
    model: None = attrs.field(default=None, init=False)
    _lists: dict[str, _Listing] = attrs.field(
        factory=dict[str, "_Listing"], init=False, eq=False, repr=False
    )  # by the digest of the tests, of which the same have the same ids

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        settings = attrs.asdict(self, filter=lambda field, _: field.init and field.name != "name")
        settings["tests"] = None if self.tests is None else sandboxed.files_digest(self.tests)
        return scorer_digest("pytest", 1, **settings)

    def check(self, sample: Sample, path: str) -> None:
        """Go on if there are tests.

        Raises:
            ConfigError: There are none.
        """
        self._tests_of(sample, f"{path}.target")

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return 1 if every test passes, or the share of those that do.

        Raises:
            SandboxError: A sandbox could not be had, or died.
        """
        tests = _below(TESTS, self._tests_of(submission.sample, "sample.target"))
        placed = sandboxed.files_of(submission, {}, self.file, self.content)
        if (reason := sandboxed.unusable(placed)) is not None:
            return verdict(self, 0, label="bad_artifacts", explanation=reason)
        files = _below(SUBMISSION, placed)
        listed = await self._list(tests, sandboxes)
        if isinstance(listed, str):
            return unscored(self, listed)
        run = await self._pytest.run(sandboxes, {**files, **tests}, collect=False)
        return self._judge(listed, run)

    @property
    def _pytest(self) -> Pytest:
        stem = PurePosixPath(self.file).parts[0].removesuffix(".py")
        return Pytest(
            modules=(stem,) if self.modules is None else self.modules,
            plugins=self.plugins,
            timeout=self.timeout,
            sandbox=self.sandbox,
        )

    def _tests_of(self, sample: Sample, path: str) -> Tests:
        return read_tests(sample.target, path) if self.tests is None else self.tests

    async def _list(self, tests: Tests, sandboxes: SandboxMaker | None) -> tuple[str, ...] | str:
        """Return the tests there are, listed in a sandbox without the submission, or why not."""
        key = digest(sandboxed.files_digest(tests))
        if key not in self._lists and len(self._lists) >= _LISTS_KEPT:
            self._lists.pop(next(iter(self._lists)))
        listing = self._lists.setdefault(key, _Listing())
        async with listing.lock:  # trials that start together list the same tests once
            if listing.ids is not None:
                return listing.ids
            found = await self._listed(tests, sandboxes)
            if not isinstance(found, str):
                listing.ids = found
            return found

    async def _listed(self, tests: Tests, sandboxes: SandboxMaker | None) -> tuple[str, ...] | str:
        run = await self._pytest.run(sandboxes, tests, collect=True)
        report = run.report
        if report is None:
            said = f"{run.result.ended}\n{run.result.stderr}"
            return f"the tests could not be listed; does the sandbox have pytest? {said}"
        if report.errors or report.code != 0 or not report.ids:
            errors = "\n".join(report.errors) or run.result.stderr
            return f"the tests could not be listed without a submission: {errors or 'none found'}"
        return report.ids

    def _judge(self, listed: tuple[str, ...], run: PytestRun) -> Score:
        result, report = run.result, run.report
        label = sandboxed.label_of(result)
        if label not in (None, "failed"):
            return verdict(self, 0, label=label, explanation=str(result.ended))
        if report is None or set(report.outcomes) != set(listed):
            said = f"{_gap(listed, report)}; {result.ended}\n{result.stderr}"
            return verdict(self, 0, label="incomplete", explanation=said)
        passed = [test for test in listed if report.outcomes[test] == "passed"]
        failed = [test for test in listed if report.outcomes[test] != "passed"]
        share = len(passed) / len(listed)
        return verdict(
            self,
            share if self.credit == "share" else float(not failed),
            explanation=result.stderr if failed else None,
            metadata={
                "passed": len(passed),
                "tests": len(listed),
                "outcomes": dict(Counter(report.outcomes.values())),
                "not_passed": failed[:_SHOWN],
            },
        )


def _below(folder: str, files: Tests) -> dict[str, str | bytes]:
    return {f"{folder}/{path}": data for path, data in files.items()}


def _gap(listed: tuple[str, ...], report: PytestReport | None) -> str:
    if report is None:
        return "pytest came to no end of its own, so no test counts"
    missing = [test for test in listed if test not in report.outcomes]
    more = len(report.outcomes.keys() - set(listed))
    named = ", ".join(missing[:_SHOWN])
    return (
        f"{len(missing)} of {len(listed)} tests did not run ({named}), and {more} ran that were "
        "not listed before the submission was there, so no test counts"
    )
