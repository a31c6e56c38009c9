"""What each model is and can do, and its hyper-parameters: read from the model's own file, for people and programs."""

import sys
from dataclasses import dataclass
from inspect import getdoc
from typing import Any

from pydantic import TypeAdapter

from recae.embedding import kinds_of
from recae.models import MODELS, build
from recae.models.base import EmbeddingKind

BEYOND = 2**31
"""A bound that nobody comes near, and that is not told."""


@dataclass(frozen=True)
class HyperParameter:
    """A hyper-parameter: what it takes, its default as JSON has it, and what it means."""

    name: str
    takes: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class Page:
    """A model: what it is in a line and at length, what it can do, and its hyper-parameters."""

    name: str
    what: str
    about: str
    folds_in: bool
    embeddings: tuple[EmbeddingKind, ...]
    hyper_parameters: tuple[HyperParameter, ...]


def all_pages() -> list[Page]:
    """Return the pages of all models, the simplest first."""
    return [page(name) for name in MODELS]


def page(name: str) -> Page:
    """Return the page of a model; ModelError where there is none of that name."""
    unfitted = build(name)
    model = type(unfitted)
    fields: dict[str, Any] = TypeAdapter(model).json_schema().get("properties", {})
    return Page(
        name=model.name,
        what=(sys.modules[model.__module__].__doc__ or "").partition("\n")[0],
        about=getdoc(model) or "",
        folds_in=model.folds_in,
        embeddings=kinds_of(unfitted),
        hyper_parameters=tuple(
            HyperParameter(field, _takes(schema), schema["default"], schema["description"])
            for field, schema in fields.items()
        ),
    )


def _takes(schema: dict[str, Any]) -> str:
    """Return the values that a JSON schema allows, in words."""
    if "enum" in schema:
        return " or ".join(schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_takes, schema["anyOf"]))
    if schema["type"] in ("boolean", "null"):
        return {"boolean": "true or false", "null": "null"}[schema["type"]]
    if schema["type"] == "array":
        return f"a list, each: {_takes(schema['items'])}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema and schema[key] < BEYOND]
    kind = {"integer": "a whole number", "number": "a number"}[schema["type"]]
    return f"{kind} {' and '.join(bounds)}" if bounds else kind
