"""What sandboxes and runs leave in the state folder, searched for what they were given and made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from host import GROUPS

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.crypto_utils import MasterKey, list_keys, verify_folder
from sandbox_sdk.crypto_utils.key_files import read_public
from sandbox_sdk.errors import KeyNotFound

pytestmark = pytest.mark.anyio

WORDS = ("prompt", "answer", "code", "output", "artifact", "file", "env", "metadata", "target")
CANARIES = {word: f"canary-{word}-93ce" for word in WORDS}
SHELL = (
    f"echo {CANARIES['code']} > /dev/null; printf %s {CANARIES['artifact']} > kept.txt; "
    "printf 'canary-%s-93ce\\n' output; cat given; for n in $(seq 2000); do echo $n; done"
)


def found(state: Path) -> set[str]:
    """Return the canaries in any file of a state folder, workspaces that live on the disk aside."""
    paths = [path for path in state.rglob("*") if path.is_file() and "workspace" not in path.parts]
    texts = [str(path).encode() + path.read_bytes() for path in paths]
    return {word for word, text in CANARIES.items() if any(text.encode() in each for each in texts)}


def batch(level: str) -> dict[str, Any]:
    call = {"tool_calls": [{"name": "bash", "arguments": {"command": SHELL}}]}
    return {
        **{"model": "mock/script", "prompt": "{input}", "tools": ["bash"], "scorers": ["exact"]},
        "dataset": [{"id": "s", "input": CANARIES["prompt"], "target": CANARIES["target"]}],
        "parameters": {"extra_body": {"script": [call, CANARIES["answer"]]}},
        **{"files": {"given": CANARIES["file"]}, "artifacts": ["kept.txt"]},
        "sandbox": {"security_level": level, "env": {"TOKEN": CANARIES["env"]}},
    }


async def work(state: Path, key: str | None, level: str) -> str:
    """Run a batch, and an experiment in a sandbox that stays; return that one's id."""
    config = {"security": {"encryption_key": key}} if key else None
    async with AsyncSandboxClient(state_dir=state, config=config) as client:
        result = await client.run_batch(batch(level))
        assert result.status == "complete"
        (told,) = [trial.result for trial in result.trials]
        assert told is not None
        assert CANARIES["output"] in str(told.messages)
        sandbox = await client.create_sandbox(
            "kept",
            security_level=level,
            env={"TOKEN": CANARIES["env"]},
            metadata={"owner": CANARIES["metadata"]},
            files={"given": CANARIES["file"]},
        )
        code = f"import os; print(os.environ['TOKEN'], 'canary-%s-93ce' % 'output', '{SHELL[:40]}')"
        ran = await sandbox.run_experiment({"code": code})
        assert CANARIES["output"] in ran.output
        await sandbox.cleanup()
        (folder,) = await sandbox.export_results(state.with_name("out"))
        exported = result.export(state.with_name("out"))
        signed = key is not None or level == "high"
        public = read_public(state / "keys")
        for place in (folder, exported):
            told_of_it = verify_folder(place, [public] if public else [])
            assert told_of_it.status == ("verified" if signed else "unsigned")
        return sandbox.id


async def test_with_a_key_nothing_of_it_can_be_read(tmp_path: Path) -> None:
    state, key = tmp_path / "state", MasterKey.generate().to_text()
    made = await work(state, key, "medium")
    assert found(state) == set()
    async with AsyncSandboxClient(state_dir=state) as client:  # which has no key
        assert [info.id for info in await client.list_sandboxes()] == [made]
        runs = await client.list_runs()
        assert [bool(run.key_id) for run in runs] == [True, True]
        with pytest.raises(KeyNotFound):
            await client.get_run(runs[0].id)
        await client.delete_sandbox(made)
    left = {key.name for key in list_keys(state / "keys")}
    gone = {run.id for run in runs if run.sandbox_id == made}
    assert gone
    assert left.isdisjoint(gone)


async def test_the_search_finds_all_of_it_where_nothing_is_sealed(tmp_path: Path) -> None:
    """The control."""
    await work(tmp_path / "state", None, "medium")
    assert found(tmp_path / "state") == set(CANARIES)


@pytest.mark.skipif(not GROUPS, reason="high is refused here, which test_walls_off tests")
async def test_at_high_all_of_it_is_sealed_without_a_key_of_ones_own(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.warns(UserWarning, match=r"local\.key"):
        await work(state, None, "high")
    assert found(state) == set()
