"""Our JSON Schema judges as draft 2020-12 does, and refuses what it would not judge."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments.scorers.checks.schema import KEYWORDS, faults
from sandbox_sdk.experiments.scorers.json_schema import read_schema

POINT = {"$defs": {"n": {"type": "number"}}, "items": {"$ref": "#/$defs/n"}}
TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
CHOICE = {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}}

# A schema, values that fit, values that do not.
CASES: list[tuple[Any, list[Any], list[Any]]] = [
    (True, [None, 1], []),
    (False, [], [None, 1]),
    ({"type": "integer"}, [1, 1.0, -(10**30)], [1.5, "1", True, None]),
    ({"type": "number"}, [1, 1.5], [True, "1"]),
    ({"type": ["null", "boolean"]}, [None, True], [0, ""]),
    ({"type": "array"}, [[]], [{}]),
    ({"enum": [1, "a", [1]]}, [1, 1.0, "a", [1.0]], [True, "1", [True]]),
    ({"const": {"a": 0}}, [{"a": 0}, {"a": 0.0}], [{"a": False}, {}]),
    ({"minimum": 1, "maximum": 2}, [1, 2, "x", True], [0.9, 2.1]),
    ({"exclusiveMinimum": 1, "exclusiveMaximum": 2}, [1.5], [1, 2]),
    ({"multipleOf": 0.01}, [0.07, 19.99, 3, "x"], [0.075]),
    ({"multipleOf": 3}, [9, 3.0, 10**400 * 3], [10, 1e-300]),
    ({"minLength": 2, "maxLength": 3}, ["ab", "\U0001f600\U0001f600", 7], ["a", "abcd"]),
    ({"pattern": "b+"}, ["abba", 1], ["a", ""]),
    ({"minItems": 1, "maxItems": 2}, [[1], {}], [[], [1, 2, 3]]),
    ({"uniqueItems": True}, [[1, True, "1"], [{"a": 1}, {"a": 2}]], [[1, 1.0], [{}, {}]]),
    ({"uniqueItems": False}, [[1, 1]], []),
    ({"items": {"type": "string"}}, [[], ["a"], {}], [["a", 1]]),
    ({"prefixItems": [{"const": 1}], "items": False}, [[], [1]], [[2], [1, 1]]),
    ({"contains": {"const": 1}}, [[1, 2]], [[], [2]]),
    ({"contains": {"const": 1}, "minContains": 0}, [[]], []),
    ({"contains": {"const": 1}, "maxContains": 1}, [[1]], [[1, 1]]),
    ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}, []], [{}, {"a": 1, "b": 1}]),
    ({"required": ["a"]}, [{"a": None}, []], [{}]),
    ({"properties": {"a": {"type": "null"}}}, [{"a": None}, {"b": 1}], [{"a": 1}]),
    ({"patternProperties": {"^x": {"const": 1}}}, [{"x1": 1, "y": 2}], [{"x": 2}]),
    (
        {"properties": {"a": True}, "patternProperties": {"^x": True}}
        | {"additionalProperties": False},
        [{"a": 1, "xy": 1}],
        [{"b": 1}],
    ),
    ({"propertyNames": {"maxLength": 1}}, [{"a": 1}], [{"ab": 1}]),
    ({"dependentRequired": {"a": ["b"]}}, [{"a": 1, "b": 1}, {"c": 1}], [{"a": 1}]),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, [{"c": 1}], [{"a": 1}]),
    ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1], [0, 3]),
    ({"anyOf": [{"type": "string"}, {"minimum": 2}]}, ["a", 2], [1]),
    ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, [2, 3], [6, 1]),
    ({"not": {"type": "string"}}, [1], ["a"]),
    (CHOICE, ["ab", 2], ["a", 1]),
    (POINT, [[1, 2.5]], [["1"]]),
    (TREE, [{"kids": [{"kids": []}]}], [{"kids": [{"kids": 1}]}]),
    ({"$defs": {"a/b": {"const": 1}}, "$ref": "#/$defs/a~1b"}, [1], [2]),
    ({"title": "t", "format": "email", "default": 3}, ["no address"], []),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), CASES)
def test_values_are_judged_as_the_standard_says(
    schema: Any, right: list[Any], wrong: list[Any]
) -> None:
    read = read_schema(schema, "schema")
    assert [value for value in right if faults(value, read)] == []
    assert [value for value in wrong if not faults(value, read)] == []


def test_every_keyword_is_tried() -> None:
    tried = {word for schema, _, _ in CASES if isinstance(schema, dict) for word in schema}
    assert tried >= KEYWORDS


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (3, "schema: must be a mapping"),
        ({"type": "text"}, "schema.type[0]: no such word"),
        ({"unevaluatedProperties": False}, "schema.unevaluatedProperties: is no keyword"),
        ({"properties": {"a": 1}}, "schema.properties.a: must be a schema"),
        ({"properties": []}, "schema.properties: must be a mapping"),
        ({"allOf": []}, "schema.allOf: must be a list of at least one"),
        ({"enum": []}, "schema.enum: must hold at least one"),
        ({"pattern": "("}, "schema.pattern: is no regular expression"),
        ({"patternProperties": {"(": True}}, "schema.patternProperties.(: is no regular"),
        ({"$ref": "#/$defs/no"}, "schema.$ref: '#/$defs/no' is no part"),
        ({"$ref": "http://example.org/x"}, "schema.$ref: 'http://example.org/x' is no part"),
        ({"$ref": "#"}, "schema.$ref: leads back to itself"),
        ({"$ref": 1}, "schema.$ref: must be text"),
        ({"minItems": -1}, "schema.minItems: must be from 0"),
        ({"const": object()}, "schema.const: must be something JSON can say"),
    ],
)
def test_a_schema_that_would_not_judge_as_meant_is_refused(schema: Any, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_schema(schema, "schema")
    assert str(caught.value).startswith(fault)


def test_faults_name_the_place_and_are_few() -> None:
    rules = read_schema({"items": {"properties": {"a": {"type": "string"}}}}, "schema")
    assert faults([{"a": 1}], rules) == ["$[0].a: must be string"]
    assert len(faults([{"a": 1}] * 100_000, rules)) == 20
