"""The scorer that reads the output as JSON and checks it by a schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers.base import (
    Graders,
    SandboxMaker,
    Score,
    Submission,
    scorer_digest,
    unscored,
    verdict,
)
from sandbox_sdk.experiments.scorers.blocks import last_block
from sandbox_sdk.experiments.scorers.checker import CHECK_SECONDS, CheckFailed, shared_checker
from sandbox_sdk.experiments.scorers.checks import json_values, schema
from sandbox_sdk.experiments.scorers.pattern import read_pattern
from sandbox_sdk.parse import Faults, describe, fault, suggestion
from sandbox_sdk.values import Sample


def read_schema(value: object, path: str) -> dict[str, Any] | bool:
    """Return a JSON schema whose every keyword is known and right.

    Unknown keywords are refused: one that is misspelt would judge nothing, in silence.

    Raises:
        ConfigError: It is none; all faults at once.
    """
    if isinstance(value, bool):
        return value
    found = fields.json_object(value, path)
    faults = Faults()
    _read(found, path, found, faults)
    faults.check()
    return found


Check = Callable[[Any, str, Any, Faults], None]


def _read(value: Any, path: str, root: Any, faults: Faults) -> None:
    if isinstance(value, bool):
        return
    if not json_values.is_object(value):
        faults.add(path, f"must be a schema: a mapping, true or false, not {describe(value)}")
        return
    for word, said in value.items():
        where = f"{path}.{word}"
        if (check := _KEYWORDS.get(word)) is not None:
            check(said, where, root, faults)
        elif word not in schema.ANNOTATIONS:
            known = suggestion(word, schema.KEYWORDS | schema.ANNOTATIONS)
            faults.add(where, f"is no keyword that is checked{known}")


def _by(reader: fields.Reader) -> Check:
    def check(said: Any, path: str, _: Any, faults: Faults) -> None:
        with faults.collect():
            reader(said, path)

    return check


def _list(said: Any, path: str, root: Any, faults: Faults) -> None:
    if not json_values.is_list(said) or not said:
        faults.add(path, "must be a list of at least one schema")
        return
    for index, item in enumerate(said):
        _read(item, f"{path}[{index}]", root, faults)


def _map(said: Any, path: str, root: Any, faults: Faults) -> None:
    if not json_values.is_object(said):
        faults.add(path, f"must be a mapping of names to schemas, not {describe(said)}")
        return
    for name, item in said.items():
        _read(item, f"{path}.{name}", root, faults)


def _patterns(said: Any, path: str, root: Any, faults: Faults) -> None:
    _map(said, path, root, faults)
    if json_values.is_object(said):
        for pattern in said:
            with faults.collect():
                read_pattern(pattern, f"{path}.{pattern}")


def _reference(said: Any, path: str, root: Any, faults: Faults) -> None:
    seen: set[str] = set()
    while isinstance(said, str) and said not in seen:
        seen.add(said)
        try:
            target = json_values.resolve(root, said)
        except (LookupError, ValueError):
            faults.add(path, f"{said[:200]!r} is no part of this schema; write #/$defs/NAME")
            return
        if not json_values.is_object(target) or "$ref" not in target:
            return
        said = target["$ref"]
    faults.add(path, "leads back to itself" if isinstance(said, str) else "must be text")


def _types(value: object, path: str) -> object:
    return fields.one_or_more(fields.word(*json_values.TYPES))(value, path)


def _filled_list(value: object, path: str) -> object:
    if not fields.items_of(value, path):
        raise fault(path, "must hold at least one value")
    return value


_COUNT = _by(fields.whole(0))
_NUMBER = _by(fields.number(-1e15))
_NAMES = fields.list_of(fields.text)

_KEYWORDS: Mapping[str, Check] = {
    "$ref": _reference,
    "$defs": _map,
    "definitions": _map,
    "type": _by(_types),
    "enum": _by(_filled_list),
    "const": _by(fields.json_value),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    "multipleOf": _by(fields.number(0, above=True)),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minContains", "maxContains", "minProperties", "maxProperties"), _COUNT),
    "pattern": _by(read_pattern),
    "uniqueItems": _by(fields.flag),
    "prefixItems": _list,
    **dict.fromkeys(("items", "contains", "additionalProperties", "propertyNames"), _read),
    **dict.fromkeys(("not", "if", "then", "else"), _read),
    "required": _by(_NAMES),
    "properties": _map,
    "patternProperties": _patterns,
    "dependentRequired": _by(fields.mapping_of(_NAMES)),
    "dependentSchemas": _map,
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _list),
}

READERS: Mapping[str, fields.Reader] = {
    "schema": read_schema,
    "timeout": fields.number(0, 60, above=True),
}
"""The fields of ``json_schema``."""


@attrs.frozen(kw_only=True)
class JSONSchemaScorer:
    """Reads the output as JSON and checks it by a schema of draft 2020-12.

    The JSON is the whole output, or else the last fenced block in it.

    Attributes:
        name: Its name.
        schema: The schema; without one, any JSON is right.
        timeout: Seconds that the check may take.
    """

    name: str
    schema: Mapping[str, Any] | bool = attrs.field(default=True, repr=False)
    timeout: float = CHECK_SECONDS
    needs_sandbox: bool = attrs.field(default=False, init=False)
    model: None = attrs.field(default=None, init=False)

    @property
    def digest(self) -> str:
        """SHA-256 of its version and settings."""
        return scorer_digest("json_schema", 1, schema=self.schema)

    def check(self, sample: Sample, path: str) -> None:
        """Go on: it needs nothing of the sample."""

    async def score(
        self,
        submission: Submission,
        *,
        sandboxes: SandboxMaker | None = None,
        models: Graders | None = None,
    ) -> Score:
        """Return 1 if the output is JSON that fits; unscored if that takes too long to find out."""
        texts = [submission.output]
        if (block := last_block(submission.output)) is not None:
            texts.append(block)
        faults: list[str] = []
        for text in texts:
            try:
                found = await shared_checker().run(
                    "validate", seconds=self.timeout, rules=self.schema, text=text
                )
            except CheckFailed as error:
                return unscored(self, str(error))
            faults = found["faults"]
            if found["json"]:
                listed = "\n".join(faults) or None
                label = "invalid" if faults else "correct"
                return verdict(self, not faults, label=label, answer=text, explanation=listed)
        return verdict(self, 0, label="not_json", explanation="\n".join(faults))
