"""From what a user writes to a scorer: a word, a mapping, or a Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.scorers import (
    command,
    function,
    graded,
    io,
    json_schema,
    numeric,
    pattern,
    pytest_scorer,
    text,
)
from sandbox_sdk.experiments.scorers.base import Scorer
from sandbox_sdk.parse import Faults, describe, fault, suggestion


def _no_faults(found: Mapping[str, Any], path: str) -> Faults:
    return Faults()


# Any: readers return each field's own type, which a table cannot say.
@attrs.frozen(kw_only=True)
class Kind:
    """One type of scorer.

    Attributes:
        readers: Its fields besides ``type`` and ``name``.
        make: Makes it of its name and the fields as read.
        faults: The faults of fields that do not go together.
    """

    readers: Mapping[str, fields.Reader]
    make: Callable[..., Scorer]
    faults: Callable[[Mapping[str, Any], str], Faults] = _no_faults


KINDS: Mapping[str, Kind] = {
    "exact": Kind(readers=text.READERS, make=partial(text.TextScorer, kind="exact")),
    "includes": Kind(readers=text.READERS, make=partial(text.TextScorer, kind="includes")),
    "numeric": Kind(readers=numeric.READERS, make=numeric.NumericScorer),
    "regex": Kind(readers=pattern.READERS, make=pattern.RegexScorer, faults=pattern.faults_of),
    "json_schema": Kind(readers=json_schema.READERS, make=json_schema.JSONSchemaScorer),
    "function": Kind(
        readers=function.READERS, make=function.FunctionScorer, faults=function.faults_of
    ),
    "command": Kind(readers=command.READERS, make=command.CommandScorer, faults=command.faults_of),
    "model_graded": Kind(
        readers=graded.READERS, make=graded.ModelGradedScorer, faults=graded.faults_of
    ),
    "pytest": Kind(readers=pytest_scorer.READERS, make=pytest_scorer.PytestScorer),
    "io": Kind(readers=io.READERS, make=io.IOScorer, faults=io.faults_of),
}
"""The types of scorers there are."""


def build(spec: object, path: str = "scorer") -> Scorer:
    """Return the scorer that a config value describes.

    Args:
        spec: A type such as ``"exact"``, a mapping with its ``type``, perhaps a ``name``, and the
            type's own fields, or a Python function.
        path: Where the value stands, for errors.

    Raises:
        ConfigError: It describes none; all faults at once, each with its path.
    """
    if callable(spec):
        source = function.source_of(spec, path)
        return function.FunctionScorer(name=source.entry, source=source)
    if not isinstance(spec, str | Mapping):
        wanted = "a scorer's type, a mapping or a function"
        raise fault(path, f"must be {wanted}, not {describe(spec)}")
    given: dict[str, object] = (
        {"type": spec}
        if isinstance(spec, str)
        else dict(fields.names_of(cast("object", spec), path))
    )
    word = given.pop("type", None)
    if not isinstance(word, str) or word not in KINDS:
        hint = suggestion(word, KINDS) if isinstance(word, str) else f"; known are {_known()}"
        raise fault(f"{path}.type", f"there is no scorer {describe(word)}{hint}")
    kind = KINDS[word]
    found = fields.read_fields(given, path, {"name": fields.line, **kind.readers})
    kind.faults(found, path).check()
    return kind.make(**{"name": word, **found})


def build_all(specs: object, path: str = "scorers") -> tuple[Scorer, ...]:
    """Return the scorers of a list, each with a name of its own.

    Raises:
        ConfigError: One of them is none, or two have the same name; all faults at once.
    """
    faults = Faults()
    found: dict[str, Scorer] = {}
    many = isinstance(specs, list | tuple)
    items: Sequence[object] = cast("Sequence[object]", specs) if many else (specs,)
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        with faults.collect():
            scorer = build(item, where)
            if scorer.name in found:
                faults.add(f"{where}.name", f"{scorer.name!r} is taken: give each scorer its own")
            found[scorer.name] = scorer
    faults.check()
    return tuple(found.values())


def _known() -> str:
    return ", ".join(sorted(KINDS))
