"""Every value that crosses layers survives JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_sdk import values
from sandbox_sdk.wire import from_json, to_json

number = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=20)

st.register_type_strategy(float, number)
st.register_type_strategy(str, text)
st.register_type_strategy(Path, st.text("ab./", min_size=1, max_size=9).map(Path))

VALUES = [
    values.Resources,
    values.Mount,
    values.SandboxSpec,
    values.Ended,
    values.CommandResult,
    values.CodeError,
    values.CodeResult,
    values.FileInfo,
    values.Artifact,
    values.Collected,
    values.Wall,
    values.Isolation,
    values.Limit,
    values.Usage,
    values.SandboxInfo,
    values.TemplateInfo,
]


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_a_value_is_the_same_after_json(cls: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(cls))
    plain = json.loads(json.dumps(to_json(value), allow_nan=False))
    assert from_json(cls, plain) == value
    assert from_json(cls, {**plain, "a key of tomorrow": 1}, lenient=True) == value
