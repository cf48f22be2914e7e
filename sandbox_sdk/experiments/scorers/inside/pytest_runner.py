"""Runs pytest inside a scorer's sandbox and tells the host what became of every test.

The host sends one JSON object on standard input. The answer is one line on the real standard
output: a secret of that object, then JSON. Code under test runs in this process and can reach
whatever it holds; what is kept from it is the way in: no file of the submission is on a path that
Python or pytest looks at for configuration, plugins or modules other than those declared.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types
from typing import Any, Dict, List, Sequence  # noqa: UP035 - for an older Python inside


class Submission(importlib.abc.MetaPathFinder):
    """Finds the modules that are the submission's: in its folder, or stubs before it is there."""

    def __init__(self, modules: Sequence[str], folder: str, stub: bool) -> None:
        self._modules = frozenset(modules)
        self._folder = folder
        self._stub = stub

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module is, if it is one of the submission's."""
        if name.partition(".")[0] not in self._modules:
            return None
        if self._stub:
            return importlib.machinery.ModuleSpec(name, Stubs(), is_package=True)
        if "." in name:  # found by its package
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self._folder])


class Stubs(importlib.abc.Loader):
    """Makes modules that have every name, so that tests can be listed without a submission."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return an empty module that has every name."""
        return Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing: there is no code."""


class Stub(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from unittest.mock import MagicMock

        return MagicMock(name=f"{self.__name__}.{name}")


class Reporter:
    """A plugin of pytest that notes the tests there are and how each ended."""

    def __init__(self) -> None:
        self.ids: List[str] = []  # noqa: UP006 - for an older Python inside
        self.outcomes: Dict[str, str] = {}  # noqa: UP006
        self.errors: List[str] = []  # noqa: UP006

    def pytest_collection_finish(self, session: Any) -> None:
        """Note the tests."""
        self.ids = [item.nodeid for item in session.items]

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that could not be collected."""
        if report.failed:
            self.errors.append(f"{report.nodeid}: {report.longrepr}"[:2000])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a phase: a test passed if its call did and neither set-up nor teardown failed."""
        known = self.outcomes.get(report.nodeid, "passed")
        if report.when == "call" or report.outcome != "passed":
            outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            self.outcomes[report.nodeid] = outcome if known == "passed" else known


def main() -> None:
    """Run the tests, or list them, and answer."""
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what tests print is no answer
    asked = json.load(sys.stdin)
    os.makedirs(asked["submission"], exist_ok=True)
    os.chdir(asked["submission"])
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path += [asked["tests"], asked["submission"]]
    finder = Submission(asked["modules"], asked["submission"], asked["collect"])
    sys.meta_path.insert(0, finder)

    import pytest

    options = ["-q", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider"]
    options += ["--import-mode=importlib", f"--rootdir={asked['tests']}"]
    options += [f"--confcutdir={asked['tests']}", *(f"-p{name}" for name in asked["plugins"])]
    options += ["--collect-only"] if asked["collect"] else []
    reporter = Reporter()
    code = int(pytest.main([*options, asked["tests"]], plugins=[reporter]))
    found = {"code": code, **vars(reporter)}
    answer.write(f"\n{asked['secret']} {json.dumps(found)}\n")
    answer.flush()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    os._exit(0)  # nothing that the submission left behind runs any more


main()
