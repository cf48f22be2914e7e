"""Datasets, grids and plans: what is read, what is refused, and what decides a trial's key."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.batches.batch_config import BatchConfig
from sandbox_sdk.experiments.batches.datasets import from_json, read_dataset, to_json
from sandbox_sdk.experiments.batches.plan import Plan, ready_condition
from sandbox_sdk.experiments.batches.trial_key import trial_seed
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.values import Resources, SandboxSpec

ECHO = {"model": "mock/echo"}
ROWS = [{"id": "a", "input": "one", "target": 1}, {"id": "b", "input": "two", "target": 2}]


def plan_of(config: Mapping[str, Any], spec: SandboxSpec | None = None) -> Plan:
    batch = BatchConfig.read(config)
    models = ModelRegistry(environ={})
    spec = spec or SandboxSpec(name="x")
    return Plan(batch, [ready_condition(batch, each, spec, models) for each in batch.conditions])


def faults_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        BatchConfig.read(config)
    return caught.value.faults


def test_rows_from_a_list_a_file_and_a_function_are_the_same_dataset(tmp_path: Path) -> None:
    jsonl, table = tmp_path / "rows.jsonl", tmp_path / "rows.csv"
    jsonl.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    table.write_text('id,input,target\na,one,1\nb,"two",2\n')

    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS

    listed = read_dataset(ROWS)
    assert read_dataset(str(jsonl)).digest == read_dataset(rows).digest == listed.digest
    assert [sample.prompt for sample in read_dataset(str(table)).samples] == ["one", "two"]
    assert [sample.target for sample in read_dataset(table).samples] == ["1", "2"]
    assert (read_dataset(jsonl).source, read_dataset(rows).source[-4:]) == ("rows.jsonl", "rows")


def test_a_rows_other_columns_are_metadata_and_texts_are_inputs(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("\N{ZERO WIDTH NO-BREAK SPACE}input,topic,level\nwhy?,physics,\n")
    (sample,) = read_dataset(table).samples
    assert (sample.id, sample.prompt, sample.metadata) == ("1", "why?", {"topic": "physics"})
    assert [sample.prompt for sample in read_dataset(["x", "y"]).samples] == ["x", "y"]


def test_a_sample_survives_being_kept() -> None:
    full = {
        "id": "x",
        "input": [{"role": "user", "content": "hi"}],
        "target": {"deep": [1, None]},
        "metadata": {"a": 1},
        "files": {"a/b": b"\xff\x00", "c": "text"},
        "setup": "true",
    }
    (sample,) = read_dataset([full]).samples
    assert from_json(json.loads(json.dumps(to_json(sample)))) == sample


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no rows"),
        ([{"id": "a"}, {"id": "a"}], "is the id of row 1 too"),
        ([{"prompt": "x"}], 'is called "input"'),
        ([{"input": ""}], "must not be empty"),
        ([{"files": {"../x": "y"}}], "outside the workspace"),
        (["ok", 3], "must be a mapping"),
        ("rows.txt", 'must end in ".jsonl"'),
        ("absent.jsonl", "cannot be read"),
        (lambda: "text", "must return an iterable"),
        (7, "must be a list of rows"),
    ],
)
def test_what_is_no_dataset_is_refused_with_its_row(rows: Any, said: str) -> None:
    (fault,) = faults_of({**ECHO, "dataset": rows})
    assert fault.startswith("batch.dataset")
    assert said in fault


def test_faults_of_all_rows_are_told_at_once_up_to_a_bound() -> None:
    faults = faults_of({**ECHO, "dataset": [{"input": 1} for _ in range(100)]})
    assert len(faults) == 21
    assert faults[0].startswith("batch.dataset[1].input")


async def _coroutine() -> list[str]:
    return []


def test_an_async_function_is_refused_without_a_warning() -> None:
    (fault,) = faults_of({**ECHO, "dataset": _coroutine})
    assert "iterable of rows" in fault


def test_a_grid_makes_every_combination_the_last_axis_fastest() -> None:
    batch = BatchConfig.read(
        {
            "prompt": "x",
            "parameters": {"top_p": 0.5},
            "sandbox": {"security_level": "medium"},
            "grid": {
                "model": ["mock/echo", "mock/script"],
                "parameters.temperature": [0, 0.7],
                "sandbox": [{"resources": {"memory": "64MiB"}}],
            },
        }
    )
    labels = [condition.label for condition in batch.conditions]
    assert labels[:2] == [
        "model=mock/echo, parameters.temperature=0, sandbox=#1",
        "model=mock/echo, parameters.temperature=0.7, sandbox=#1",
    ]
    first = batch.conditions[0]
    assert first.config.parameters == {"top_p": 0.5, "temperature": 0}
    assert first.sandbox == {"security_level": "medium", "resources": {"memory": "64MiB"}}
    assert batch.planned == 4


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"modle": ["a"]}, 'did you mean "model"'),
        ({"model": "mock/echo"}, "must be a list"),
        ({"model": []}, "has no values"),
        ({"model": ["mock/echo", "mock/echo"]}, "twice"),
        ({"prompt.x": ["a"]}, "an axis is a field"),
        ({"parameters": [{}], "parameters.seed": [1]}, 'no axis "parameters"'),
        ({"parameters.temperature": ["hot"]}, "(condition parameters.temperature=hot)"),
        ({"name": ["a"]}, "no field of an experiment"),
    ],
)
def test_what_is_no_grid_is_refused_with_its_path(grid: Any, said: str) -> None:
    faults = faults_of({**ECHO, "prompt": "x", "grid": grid})
    assert said in faults[0]
    assert faults[0].startswith("batch.")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**ECHO, "prompt": "same", "dataset": ["a"]}, 'does not hold "{input}"'),
        ({**ECHO, "prompt": "{input} {metadata.x}", "dataset": ["a"]}, "which sample '1' has not"),
        ({**ECHO, "dataset": [{"id": "q"}]}, "sample 'q' has no input"),
        ({"code": "1", "dataset": ["a"]}, '"code" does not use'),
        ({**ECHO}, "exactly one of"),
        ({**ECHO, "prompt": "x", "repeats": 0}, "batch.repeats"),
        ({**ECHO, "prompt": "x", "sandbox": {"name": "n"}}, "batch.sandbox.name"),
        ({**ECHO, "prompt": "x", "datset": []}, 'did you mean "dataset"'),
    ],
)
def test_what_does_not_go_together_is_refused(config: Any, said: str) -> None:
    assert any(said in fault for fault in faults_of(config))


def test_a_samples_words_are_put_in_once_and_other_braces_stay() -> None:
    rows = [{"input": "{metadata.x}", "metadata": {"x": "{input}", "n": [1]}}]
    prompt = '{"json": 1} {input} {metadata.x} {metadata.n} {other}'
    (trial,) = plan_of({**ECHO, "prompt": prompt, "dataset": rows})
    assert trial.config.prompt == '{"json": 1} {metadata.x} {input} [1] {other}'


def test_without_a_dataset_a_prompt_is_what_it_says() -> None:
    (trial,) = plan_of({**ECHO, "prompt": "print {input}"})
    assert trial.config.prompt == "print {input}"


def test_files_and_setup_of_batch_and_sample_are_joined() -> None:
    rows = [{"input": "x", "files": {"b": "2", "c": "3"}, "setup": "echo two"}]
    config = {**ECHO, "files": {"a": "1", "b": "1"}, "setup": "echo one", "dataset": rows}
    (trial,) = plan_of(config)
    assert trial.config.files == {"a": "1", "b": "2", "c": "3"}
    assert trial.config.setup == "{\necho one\n} && {\necho two\n}"
    assert trial.spec is not None


def test_the_plan_spreads_over_samples_and_conditions_first() -> None:
    grid = {"parameters.temperature": [0, 1]}
    plan = plan_of({**ECHO, "dataset": ROWS, "grid": grid, "repeats": 2})
    order = [(t.repeat, t.sample.id, t.condition.config.parameters["temperature"]) for t in plan]
    assert order == list(itertools.product((1, 2), ("a", "b"), (0, 1)))
    assert len(set(plan.keys)) == 8
    assert [plan.index(key) for key in plan.keys] == list(range(8))


def test_a_trial_that_only_asks_needs_no_sandbox_and_its_key_knows_none() -> None:
    (asking,) = plan_of({**ECHO, "prompt": "x"})
    assert asking.spec is None
    other = SandboxSpec(name="y", resources=Resources(memory_bytes=10**8))
    (same,) = plan_of({**ECHO, "prompt": "x"}, other)
    assert same.key == asking.key
    (first,) = plan_of({**ECHO, "prompt": "x", "tools": ["bash"]})
    (second,) = plan_of({**ECHO, "prompt": "x", "tools": ["bash"]}, other)
    assert first.spec is not None
    assert first.key != second.key


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n"},
        {"description": "d"},
        {"tags": ["t"]},
        {"metadata": {"m": 1}},
        {"max_concurrency": 3},
        {"retries": {"max_retries": 1}},
        {"fail_on_error": None},
        {"admission_timeout": 5},
    ],
)
def test_how_a_run_goes_about_it_is_no_part_of_a_key(change: dict[str, Any]) -> None:
    base = {**ECHO, "dataset": ROWS}
    assert plan_of(base).keys == plan_of({**base, **change}).keys


@pytest.mark.parametrize(
    "change",
    [
        {"system": "s"},
        {"parameters": {"temperature": 1}},
        {"seed": 1},
        {"tools": ["bash"]},
        {"limits": {"turns": 3}},
        {"files": {"a": "b"}},
        {"setup": "true"},
        {"artifacts": ["x"]},
    ],
)
def test_what_decides_the_outcome_is_part_of_every_key(change: dict[str, Any]) -> None:
    base = {**ECHO, "dataset": ROWS}
    assert set(plan_of(base).keys).isdisjoint(plan_of({**base, **change}).keys)


def test_a_target_is_no_part_of_a_key_but_of_the_plan() -> None:
    other = [{**ROWS[0], "target": 9}, ROWS[1]]
    first, second = plan_of({**ECHO, "dataset": ROWS}), plan_of({**ECHO, "dataset": other})
    assert first.keys == second.keys
    assert first.digest != second.digest


def test_seeds_are_equal_across_conditions_and_differ_between_pairs() -> None:
    grid = {"parameters.temperature": [0, 1]}
    plan = plan_of({**ECHO, "dataset": ROWS, "grid": grid, "repeats": 2, "seed": 7})
    seeds = {(t.sample.id, t.repeat): set[Any]() for t in plan}
    for trial in plan:
        seeds[trial.sample.id, trial.repeat].add(trial.config.sampling_seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({seed for found in seeds.values() for seed in found}) == 4
    assert trial_seed(7, "a", 1) == next(iter(seeds["a", 1]))
    assert 0 <= (trial_seed(7, "a", 1) or 0) < 2**31
    assert all(t.config.sampling_seed is None for t in plan_of({**ECHO, "dataset": ROWS}))


def test_a_dataset_is_cut_by_number_and_by_name() -> None:
    dataset = read_dataset(ROWS)
    assert [sample.id for sample in dataset.take(limit=1).samples] == ["a"]
    assert [sample.id for sample in dataset.take(ids=["b"]).samples] == ["b"]
    assert dataset.take().digest == dataset.digest
    with pytest.raises(ConfigError, match="no sample 'z'"):
        dataset.take(ids=["z"])
