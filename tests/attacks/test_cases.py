"""The cases that this version answers for, each with the tests that try it.

A number is one of the project's list of attacks and faults; what each means is the word beside it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import attrs
import pytest
from attack_rows import ATTACKS
from attacking import GAPS, KINDS, PROGRAMS, Kind

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.policies import LEVELS

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "attacks.md"
ISOLATION = PAGE.with_name("isolation.md")


@attrs.frozen
class Case:
    """What is tried or goes wrong, and which tests do it: names, or ``FILE::NAME`` elsewhere."""

    what: str
    tests: tuple[str, ...]


MISSING_WALL = (
    "unit/test_proof.py::"
    "test_a_missing_wall_is_refused_by_name_and_can_be_waived_where_the_level_allows"
)
CASES = {
    "A01": Case(
        "read a secret of the host",
        ("test_a01_reading_host_secrets", "test_a01_reading_host_secrets_by_file_operations"),
    ),
    "A02": Case(
        "write a file of the host",
        ("test_a02_writing_host_files", "test_a02_modes_and_times_of_host_files"),
    ),
    "A03": Case("a key in the own environment", ("test_a03_key_in_own_environment",)),
    "A04": Case("a key in any environment", ("test_a04_key_in_any_environment",)),
    "A05": Case(
        "paths, tokens and names of the host",
        ("test_a05_tokens_and_names", "test_a05_paths_and_names_of_the_host"),
    ),
    "A06": Case("inherited descriptors", ("test_a06_inherited_descriptors",)),
    "A07": Case("empty the host's log", ("test_a07_emptying_the_hosts_log",)),
    "A08": Case("magic links to the host", ("test_a08_magic_links_to_the_host",)),
    "A09": Case(
        "write the kernel's switches",
        ("test_a09_writing_the_kernels_switches", "test_core_pattern_of_the_host"),
    ),
    "A10": Case(
        "write control groups",
        ("test_a10_writing_control_groups", "test_a10_control_groups_are_not_shown"),
    ),
    "A11": Case(
        "crash into a handler",
        ("test_a11_core_dumps", "test_a11_crash_with_a_handler_behind_a_pipe"),
    ),
    "A12": Case(
        "overwrite the runtime",
        ("test_a12_overwriting_the_runtime", "test_a12_overwriting_an_interpreter_of_its_own"),
    ),
    "A13": Case("setuid programs", ("test_a13_setuid_programs", "test_a13_setuid_bits")),
    "A14": Case(
        "nested user namespaces",
        ("test_a14_a15_power_over_own_namespaces", "test_a16_namespaces_and_mounts"),
    ),
    "A15": Case("an own network", ("test_a14_a15_power_over_own_namespaces",)),
    "A16": Case("mounts, roots and namespaces", ("test_a16_namespaces_and_mounts",)),
    "A17": Case("type into a terminal", (
            "test_a17_typing_into_the_callers_terminal", "test_a17_keys_of_another_command",
            "test_a17_typing_into_a_terminal_of_the_sandbox",
        )),
    "A18": Case("foreign system calls", ("test_a18_foreign_system_calls",)),
    "A19": Case("calls kernels are attacked by", ("test_a19_calls_that_kernels_are_attacked_by",)),
    "A20": Case("trace a sibling", ("test_a20_tracing_a_sibling",)),
    "A21": Case(
        "reach a process of the host",
        (
            "test_a21_tracing_and_signalling_a_host_process", "test_a21_signalling_everything",
            "test_a21_seeing_a_host_process",
        ),
    ),
    "A22": Case("devices", ("test_a22_devices",)),
    "A23": Case("files by handle", ("test_a23_files_by_handle",)),
    "A24": Case("sockets and memory of the host", ("test_a24_sockets_and_memory_of_the_host",)),
    "A25": Case("networks of the host", ("test_a25_networks_of_the_host",)),
    "A26": Case("socket families", ("test_a26_socket_families",)),
    "A30": Case(
        "links that flip during an export", ("test_a30_links_that_flip_while_the_host_collects",)
    ),
    "A31": Case(
        "odd files in an export",
        ("test_a31_odd_files", "unit/test_extract.py::test_only_regular_files_leave"),
    ),
    "A32": Case(
        "hostile archives",
        ("test_a32_hostile_archives_stay_files", "test_a32_nothing_unpacks_archives"),
    ),
    "A33": Case("a mount's source replaced", ("test_a33_workspace_replaced_by_a_link",)),
    "A34": Case(
        "options through names and words",
        (
            "test_a34_options_through_a_command", "test_a34_names_of_sandboxes", "test_a34_ids",
            "test_a34_names_that_cannot_be", "test_a34_variables", "test_a34_nul_in_arguments",
            "test_a34_names_of_initial_files",
        ),
    ),
    "A35": Case(
        "forged answers",
        (
            "test_a35_forged_answers_of_code", "test_a35_forged_exit_of_a_kept_context",
            "test_a35_answer_before_the_end", "test_a35_forged_frames_in_output",
            "test_a35_verdicts_of_the_host", "test_a35_readers_that_trust_would_be_fooled",
        ),
    ),
    "A36": Case("hostile text", ("test_a36_hostile_text_in_exports",)),
    "A37": Case("fork bomb", ("test_a37_fork_bomb",)),
    "A38": Case("memory", ("test_a38_memory", "test_a38_files_in_memory")),
    "A39": Case("disk", ("test_a39_disk", "test_a39_sparse_file")),
    "A40": Case(
        "output",
        (
            "test_a40_output_flood", "test_a40_slow_drip", "test_a40_flood_that_nobody_reads",
            "test_a40_flood_through_a_terminal", "test_a40_stuck_terminal",
        ),
    ),
    "A41": Case("what is counted per uid", ("test_a41_what_is_counted_per_uid",)),
    "A42": Case(
        "what will not end",
        (
            "test_a42_what_will_not_end", "test_a42_killing_the_keeper",
            "test_a42_survivors_outside",
        ),
    ),
    "A43": Case(
        "what waits for the end",
        (
            "test_a43_what_waits_for_the_end", "test_a43_what_waits_for_the_clients_end",
            "test_a43_lifetime",
        ),
    ),
    "A44": Case("processors", ("test_a44_processors",)),
    "A45": Case(
        "a wall or limit that cannot be had",
        (
            "test_a45_a_limit_that_cannot_be_held_is_refused_by_name",
            MISSING_WALL,
        ),
    ),
    "A46": Case(
        "the owner is killed", ("e2e/test_owner_killed.py::test_owner_killed_at_any_moment",)
    ),
    "A47": Case("what started it ends", ("test_a47_what_started_it_ends",)),
    "A50": Case("a clock that jumps", ("test_a50_clock_that_jumps",)),
    "A51": Case("calls at once and out of order", ("test_a51_all_at_once",)),
}  # fmt: skip
NUMBERS = (*range(1, 27), *range(30, 48), 50, 51)


def _tests(path: Path) -> set[str]:
    """Return the names of the tests of a module."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def test_every_case_has_its_tests() -> None:
    """No case is without a test, no named test is missing, and none with a number is left out."""
    assert list(CASES) == [f"A{number:02}" for number in NUMBERS]
    here = set[str]().union(*(_tests(path) for path in Path(__file__).parent.glob("test_*.py")))
    named = {name for case in CASES.values() for name in case.tests}
    elsewhere = {name for name in named if "::" in name}
    for name in elsewhere:
        path, _, test = name.partition("::")
        assert test in _tests(TESTS / path), name
    assert named - elsewhere <= here
    assert {name for name in here if re.match(r"test_a\d\d_", name)} <= named


def test_every_gap_is_told() -> None:
    """What fails at a level stands in the documentation, and names tests that there are."""
    isolation = " ".join(ISOLATION.read_text().split())
    here = set[str]().union(*(_tests(path) for path in Path(__file__).parent.glob("test_*.py")))
    for gap in GAPS:
        assert gap.says in isolation
        assert here.issuperset(test.partition("[")[0] for test in gap.tests)


@pytest.mark.parametrize("user", ["root", "a plain user"])
def test_the_page_has_every_attack_and_every_kind_of_sandbox(user: str) -> None:
    """The documentation's tables are those of the attacks and sandboxes there are, all shut."""
    table = PAGE.read_text().split(f"<!-- table of {user}: begin -->")[1].split("<!--")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    head, *rows, counts = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert [row[:2] for row in rows] == [[attack.case, attack.title] for attack in ATTACKS]
    assert head[2:4] == ["no sandbox", "`bwrap --unshare-all`"]
    ours = [str(kind).replace("-", " ") for kind in KINDS]
    assert head[-len(ours) :] == ours
    assert counts[:2] == ["", "open"]
    for attack, row in zip(ATTACKS, rows, strict=True):
        for kind, cell in zip(KINDS, row[-len(ours) :], strict=True):
            may = attack.allowed if user == "root" else attack.allowed | attack.ungrouped
            fine = {"closed"} | ({"allowed"} if kind.level in may else set())
            assert cell in fine | ({"late"} if attack.late else set())


def test_every_program_is_an_attack() -> None:
    """No program lies unused."""
    told = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    used = {attack.program for attack in ATTACKS} | {"tried"}
    unused = {path.stem for path in PROGRAMS.glob("*.py")} - used
    assert {name for name in unused if name not in told} == set()


@pytest.mark.anyio
async def test_a45_a_limit_that_cannot_be_held_is_refused_by_name(
    client: AsyncSandboxClient, kind: Kind
) -> None:
    """Without waivers a sandbox starts with all that its level has, or names what is missing."""
    waivable = {name for level in LEVELS.values() for name in level.waivable}
    async with await client.create_sandbox("waived") as sandbox:
        assert sandbox.isolation is not None
        waived = set(sandbox.isolation.waived)
    assert waived <= set(kind.waive)
    strict = await client.create_sandbox("strict", waive=())
    if not waived:
        await strict.setup()
        assert strict.isolation is not None
        assert strict.isolation.waived == ()
        return
    with pytest.raises(IsolationError) as refused:
        await strict.setup()
    named = {wall.name for wall in refused.value.walls}
    assert named <= waivable
    assert named & waived
    assert all(name in str(refused.value) for name in named)
