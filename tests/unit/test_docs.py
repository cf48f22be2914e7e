"""The README and ``docs/`` name what the code has, and nothing that it has not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import attrs
import pytest

import sandbox_sdk
from sandbox_sdk import crypto_utils, errors
from sandbox_sdk.cli.keys import keys
from sandbox_sdk.config_keys import KEYS
from sandbox_sdk.crypto_utils import manifests
from sandbox_sdk.engine import limits
from sandbox_sdk.experiments.config import ExperimentConfig, Limits, Retries
from sandbox_sdk.experiments.results.result import STATUS, ExperimentResult
from sandbox_sdk.experiments.schema import FIELDS, PARAMETERS
from sandbox_sdk.orchestrator import HistoryPoint, ResourceSnapshot, Scaled, Suggestion
from sandbox_sdk.orchestrator.metrics import METRICS
from sandbox_sdk.parse import parse_size
from sandbox_sdk.policies import BUILT, LEVELS, WAIVABLE, Policy
from sandbox_sdk.resources import RESOURCE_FIELDS, parse_resource
from sandbox_sdk.values import EndKind, Resources, SandboxSpec, SecurityLevel
from sandbox_sdk_sync import Files, Sandbox, SandboxClient, SDKOrchestrator

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.stem: path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
}
CODE = re.compile(r"`([^`\n]+)`")


def words(page: str) -> set[str]:
    """Every identifier that a page sets in code."""
    return {word for code in CODE.findall(PAGES[page]) for word in re.split(r"[^\w.]+", code)}


def rows(page: str, section: str = "") -> dict[str, list[str]]:
    """The first cell of every table row, without backticks, and the cells after it.

    Args:
        page: The page.
        section: The title of the only section to look at, with its marks.
    """
    text = PAGES[page]
    if section:
        text = text.partition(f"{section}\n")[2].partition("\n#")[0]
    found = (line.strip("|").split("|") for line in text.splitlines() if line[:1] == "|")
    return {first.strip().strip("`"): [cell.strip() for cell in rest] for first, *rest in found}


def public(*classes: type) -> set[str]:
    return {name for cls in classes for name in vars(cls) if not name.startswith("_")}


def test_links_lead_to_files() -> None:
    for name, text in PAGES.items():
        folder = ROOT if (ROOT / f"{name}.md").exists() else ROOT / "docs"
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), f"{name}: {link}"


def test_the_readme_names_every_error_and_every_method() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert kinds <= words("README")
    assert kinds <= set(sandbox_sdk.__all__)
    assert public(SandboxClient, Sandbox, Files) <= words("README")


def test_the_orchestrators_methods_are_documented() -> None:
    assert public(SDKOrchestrator) <= words("orchestrator")
    kinds = (ResourceSnapshot, HistoryPoint, Scaled, Suggestion)
    assert {kind.__name__ for kind in kinds} <= words("orchestrator")


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    table = {name: cells for name, cells in rows("orchestrator").items() if name in METRICS}
    assert table.keys() == METRICS.keys()
    for name, metric in METRICS.items():
        assert table[name][0] == metric.kind
        assert set(metric.labels) <= set(CODE.findall(table[name][1]))


def test_every_setting_is_documented_with_its_variable() -> None:
    named = words("configuration")
    assert KEYS.keys() <= named
    for path in KEYS:
        short = path.removeprefix("security.") if "level" not in path else path
        assert f"SANDBOX_{short.replace('.', '_').upper()}" in named, path


@pytest.mark.parametrize(("key", "field"), RESOURCE_FIELDS.items())
def test_defaults_of_resources_are_those_documented(key: str, field: str) -> None:
    path = f"default_resources.{key}"
    documented = rows("configuration")[path][1].strip("`")
    assert parse_resource(key, documented, path) == getattr(Resources(), field)


def test_every_field_of_an_experiment_is_documented() -> None:
    named = words("experiments")
    assert FIELDS.keys() | PARAMETERS.keys() <= named
    for kind in (ExperimentConfig, Limits, Retries, ExperimentResult):
        assert {field.name for field in attrs.fields(kind)} <= named, kind


def test_defaults_of_limits_are_those_documented() -> None:
    for name, default in attrs.asdict(Limits()).items():
        text = rows("experiments", "## The config")[name][0].strip("`")
        assert (None if text == "none" else parse_size(text, name)) == default


def test_every_state_is_documented_with_its_status() -> None:
    documented = {
        state: cells[0].strip("`")
        for first, cells in rows("experiments").items()
        for state in re.findall(r"\w+", first)
        if cells and cells[0].strip("`") in STATUS.values()
    }
    assert documented == {state.value: status for state, status in STATUS.items()}


def test_every_promise_of_every_level_is_documented() -> None:
    flat = " ".join(PAGES["isolation"].split())
    for rules in LEVELS.values():
        for said in (*rules.promises, *rules.not_promised):
            assert said in flat


def test_the_levels_that_are_offered_are_those_documented() -> None:
    table = rows("isolation")
    for level in get_args(SecurityLevel):
        assert table[level][0].startswith("yes" if level in BUILT else "not yet"), level


@pytest.mark.parametrize("rules", LEVELS.values(), ids=lambda rules: rules.level)
def test_the_walls_of_a_level_are_those_documented(rules: Policy) -> None:
    header = rows("isolation")["wall"]
    column = header.index(rules.level)
    documented = {
        wall
        for first, cells in rows("isolation").items()
        if len(cells) == len(header) and cells[column] == "yes"
        for wall in re.findall(r"\w+", first)
    }
    assert documented == set(rules.walls)


def test_every_limit_is_documented_with_how_it_ends() -> None:
    held = limits.held(SandboxSpec(name="x"), None, "", in_memory=True)
    table = rows("limits", "## What holds a limit")
    assert {limit.name for limit in held} == table.keys() - {"limit", "---"}
    ends = {kind for cells in table.values() for kind in CODE.findall(cells[2])}
    kinds = {EndKind.OOM, EndKind.PIDS, EndKind.DISK, EndKind.OUTPUT_LIMIT, EndKind.TIMEOUT}
    assert {kind.value for kind in kinds} <= ends


def test_the_crypto_page_names_every_public_name_status_and_command() -> None:
    named = words("crypto")
    assert set(crypto_utils.__all__) <= named
    assert set(get_args(manifests.Status)) <= rows("crypto").keys()
    commands = {name for name in keys.commands if f"sandbox-sdk keys {name}" in PAGES["crypto"]}
    assert commands == keys.commands.keys()


def test_every_waiver_is_documented_with_its_levels() -> None:
    for name in WAIVABLE:
        levels = set(CODE.findall(rows("isolation", "### Going without a wall")[name][0]))
        assert levels == {rules.level for rules in LEVELS.values() if name in rules.waivable}
