"""The files tool and a function, in a real sandbox; what they leave is in its workspace."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from sandbox_sdk import AsyncSandboxClient

pytestmark = pytest.mark.anyio


def count_words(path: str, *, longer_than: int = 0) -> dict[str, int | str]:
    """Count the words of a file."""
    import os
    import re

    with open(path) as file:
        words = [word for word in re.findall(r"\w+", file.read()) if len(word) > longer_than]
    return {"words": len(words), "host": os.environ.get("CANARY", "not seen")}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[AsyncSandboxClient, None]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as opened:
        yield opened


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


async def test_files_and_functions_work_in_a_real_sandbox(
    client: AsyncSandboxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "leaked")
    script = [
        call("files", action="write", path="notes/a.txt", content="one two three\n"),
        call("files", action="edit", path="notes/a.txt", old="two", new="twenty"),
        call("count_words", path="notes/a.txt", longer_than=3),
        call("files", action="list", path="notes"),
        call("files", action="read", path="/etc/shadow"),
        call("files", action="read", path="notes"),
        call("files", action="read", path="none"),
        "done",
    ]
    async with await client.create_sandbox("tools") as sandbox:
        result = await sandbox.run_experiment(
            {
                "model": "mock/script",
                "prompt": "go",
                "tools": ["files", count_words],
                "parameters": {"extra_body": {"script": script}},
            }
        )
        wrote, edited, counted, listed, shadow, folder, missing = result.tool_calls
        assert wrote.error is edited.error is None
        assert counted.result == '{"words": 2, "host": "not seen"}'
        assert listed.result == "a.txt (17 bytes)"
        assert await sandbox.files.read_text("notes/a.txt") == "one twenty three\n"
    kinds = [made.error and made.error.type for made in (shadow, folder, missing)]
    assert kinds[0] in ("permission", "file_not_found")
    assert kinds[1:] == ["is_a_directory", "file_not_found"]


async def test_what_no_program_can_be_given_is_the_models_to_mend(
    client: AsyncSandboxClient,
) -> None:
    script = [
        call("bash", command="echo a\0b"),
        call("bash", command="#" * 200_000),
        call("python", code="\0"),
        {"tool_calls": [{"name": "bash", "arguments": '{"command": "echo \\ud800"}'}]},
        call("files", action="write", path="a\0b", content="x"),
        call("files", action="read", path="a" * 5000),
        call("files", action="read", path=""),
        "done",
    ]
    async with await client.create_sandbox("bad") as sandbox:
        result = await sandbox.run_experiment(
            {
                "model": "mock/script",
                "prompt": "go",
                "tools": ["bash", "python", "files"],
                "parameters": {"extra_body": {"script": script}},
            }
        )
    assert result.status == "success"
    assert [bool(made.error) for made in result.tool_calls] == [True] * 7
    kinds = [made.error.type for made in result.tool_calls if made.error]
    assert kinds[:4] == ["parsing", "parsing", "nonzero", "parsing"]
