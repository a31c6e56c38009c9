"""A recipe: the data, the split, the models and the metrics of an experiment, on one page of YAML.

Nothing is merged behind the reader's back: a recipe is one file, overrides are explicit, an unknown key is an error
that names the nearest known one, and the resolved recipe can be printed as YAML again.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from recae.errors import ModelError, RecipeError, nearest
from recae.metrics import Metric
from recae.models import build
from recae.models.base import Recommender, hyper_parameters_of
from recae.ranges import Range, plain, read_range
from recae.reading import ColumnsSection, DataSection, Section, checked, problem_in_words, short

DEFAULT_METRICS = ("ndcg@100", "recall@20", "recall@50", "truncated_recall@20", "mrr@100", "coverage@20")

Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
"""What becomes the name of a directory."""

_LABELLED = ("models", "tune")
"""The sections of a recipe that have an entry for a model's label."""

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""A seed that every generator takes; numpy's is the narrowest."""


class StrongGeneralisation(Section):
    """Held-out users: a number of users, or a share of them below 1, for validation and again for test."""

    kind: Literal["strong-generalisation"]
    held_out_users: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Seed = 98765


class GlobalTime(Section):
    """The newest events, by one clock for all users."""

    kind: Literal["global-time"]
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1


class LeaveLastOut(Section):
    """Each user's last item; leaks the future across users, and says so."""

    kind: Literal["leave-last-out"]


class Given(Section):
    """The files come split: five CSVs, or train and test, where validation is carved out of train."""

    kind: Literal["given"]
    validation_users: Annotated[int, Field(ge=1)] = 1000
    held_out_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Seed = 98765


class Expected(Section):
    """What is known of the data, so that another edition or an unfinished download does not pass for it.

    Users and interactions by the rules of `data`, before the split; items that training users have.
    """

    users: int | None = None
    interactions: int | None = None
    items: int | None = None


class EvaluationSection(Section):
    """What is measured; the first metric is the main one, by which models are ordered and compared."""

    metrics: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = DEFAULT_METRICS

    @field_validator("metrics")
    @classmethod
    def _known(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parsed = [Metric.parse(metric) for metric in metrics]
        except RecipeError as error:
            raise RecipeError(f"evaluation.metrics: {error}") from None
        if not parsed[0].is_per_user:
            raise RecipeError(
                f"evaluation.metrics: '{parsed[0]}' comes first and orders the models, but has no value for each user"
            )
        return tuple(str(metric) for metric in parsed)

    @property
    def parsed(self) -> tuple[Metric, ...]:
        """The metrics, read."""
        return tuple(Metric.parse(metric) for metric in self.metrics)


class Recipe(Section):
    """An experiment, complete: `models` maps a label to hyper-parameters; `model` among them names the model.

    `models: {ease: {l2: 400}, ease-strong: {model: ease, l2: 2000}}` compares two settings of one model. `tune` maps a
    label to hyper-parameters and what a search may set them to (see `recae.ranges`); only a search reads it.
    """

    name: Name
    data: DataSection
    split: Annotated[StrongGeneralisation | GlobalTime | LeaveLastOut | Given, Field(discriminator="kind")] = (
        StrongGeneralisation(kind="strong-generalisation")
    )
    expect: Expected = Expected()
    evaluation: EvaluationSection = EvaluationSection()
    models: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    tune: dict[Name, dict[str, Any]] = Field(default={})
    seed: Seed = 42

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, raw: Any) -> Any:
        """Let empty settings of a model be its defaults, and nobody be left out of a log that comes split."""
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        if isinstance(raw.get("models"), dict):
            raw["models"] = {str(label): {} if one is None else one for label, one in raw["models"].items()}
        if (
            isinstance(raw.get("split"), dict)
            and raw["split"].get("kind") == "given"
            and isinstance(raw.get("data"), dict)
        ):
            raw["data"] = {"min_items": 1, **raw["data"]}
        return raw

    @model_validator(mode="after")
    def _split_is_one_of_ours(self) -> Self:
        if isinstance(self.split, Given):
            least = {"data.min_items": self.data.min_items > 1, "data.min_users": self.data.min_users > 1}
            wrong = next((key for key, asked in (least | {"expect": self.expect != Expected()}).items() if asked), None)
            if wrong:
                raise RecipeError(
                    f"{wrong} goes with a split that recae makes, not with one that is given; leave it out"
                )
        return self

    @model_validator(mode="after")
    def _models_can_be_built(self) -> Self:
        self.build_models()
        self.read_ranges()
        return self

    def build_models(self) -> dict[str, Recommender]:
        """Return a fresh, unfitted model for each label."""
        built = {}
        for label, settings in self.models.items():
            settings = dict(settings)
            try:
                built[label] = build(str(settings.pop("model", label)), **settings)
            except ModelError as error:
                raise ModelError(f"models.{label}: {error}") from None
        return built

    def read_ranges(self) -> dict[str, dict[str, Range]]:
        """Return what a search may set which hyper-parameters to, for each label that has any."""
        models, read = self.build_models(), dict[str, dict[str, Range]]()
        for label, ranges in self.tune.items():
            if label not in models:
                raise RecipeError(f"tune.{label}: no model of this recipe{nearest(label, models)}")
            try:
                read[label] = {
                    key: read_range(f"tune.{label}.{key}", raw, partial(_made, models[label], key))
                    for key, raw in ranges.items()
                }
            except ModelError as error:
                raise ModelError(f"tune.{label}: {error}") from None
        return {label: ranges for label, ranges in read.items() if ranges}

    def only(self, labels: Sequence[str]) -> Self:
        """Return the recipe with these of its models alone, and their ranges; with all of them where none is named."""
        self._require_labels(labels)
        kept = {
            name: {label: one for label, one in getattr(self, name).items() if label in labels} for name in _LABELLED
        }
        return self.model_copy(update=kept) if labels else self

    def _require_labels(self, labels: Sequence[str]) -> None:
        for label in labels:
            if label not in self.models:
                raise RecipeError(f"--model {label}: no model of this recipe{nearest(label, self.models)}")

    def to_search(self, labels: Sequence[str] = ()) -> dict[str, dict[str, Range]]:
        """Return the ranges to search in, of these labels or of all that have any; RecipeError where one has none."""
        self._require_labels(labels)
        ranges = self.read_ranges()
        without = [label for label in labels if label not in ranges]
        if ranges and not without:
            return {label: ranges[label] for label in ranges if not labels or label in labels}
        built = self.build_models()
        models = {label: hyper_parameters_of(built[label]) for label in without or built}
        of = next((one for one, settings in models.items() if settings), None)
        if of is None:
            raise RecipeError(f"{self.name}: {', '.join(models)}: no hyper-parameters to search for")
        wanted = f" for {', '.join(without)}" if without else ""
        raise RecipeError(
            f"{self.name}: no ranges to search{wanted}; write some into the recipe, such as "
            f"tune: {{{of}: {{{next(iter(models[of]))}: {{low: …, high: …, log: true}}}}}}, or a list of choices"
        )

    def resolved(self) -> str:
        """Return the whole recipe as YAML, every default written out."""
        whole = self.model_dump(mode="json")
        whole["models"] = {
            label: ({} if model.name == label else {"model": model.name})
            | {key: plain(value) for key, value in hyper_parameters_of(model).items()}
            for label, model in self.build_models().items()
        }
        whole["tune"] = {
            label: {key: one.plain() for key, one in ranges.items()} for label, ranges in self.read_ranges().items()
        }
        if not whole["tune"]:
            del whole["tune"]
        return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=120)


def read_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply overrides such as {"models.ease.l2": 300}.

    The paths of its data become absolute: those in the file start from its folder, those in overrides from this one.
    An override that sets `split.kind` to another kind than the file's drops the file's other split keys, as they are
    not the new kind's; the other overrides of the split apply to the new kind. {"models.ease": None} leaves the model
    out, and its ranges.
    """
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; recipes lie in pipelines/") from None
    except IsADirectoryError:
        raise RecipeError(f"{path} is a directory; give a recipe in it, a .yaml file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    overrides = overrides or {}
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    if isinstance(raw.get("data"), dict):
        raw["data"] = _with_absolute_paths(raw["data"], path.parent, str(path))
    own_kind = raw["split"].get("kind") if isinstance(raw.get("split"), dict) else None
    if own_kind not in (None, overrides.get("split.kind", own_kind)):
        raw["split"] = {}
    for key, value in overrides.items():
        _apply(raw, key, value, str(path))
    if isinstance(raw.get("data"), dict):
        raw["data"] = _with_absolute_paths(raw["data"], Path(), str(path))
    return checked(Recipe, raw, str(path), said=_problem_in_words)


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read settings written as key=value; a value is read as YAML: a number, true, null, a list.

    A tuple, as the repr of a model prints it, is a list too: (), (600,), (600, 200); and None is null.
    """
    read = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not all(key.split(".")):
            raise RecipeError(f"--set {setting}: write it as key=value")
        try:
            read[key] = read_yaml(value)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or " ".join(str(error).split())
            raise RecipeError(f"--set {short(setting)}: the value cannot be read as YAML ({problem})") from None
    return read


def read_yaml(text: str) -> Any:
    """Read YAML as people write it: 1e-3 is a number, and a key that is there twice is an error.

    Raises yaml.YAMLError, and nothing else, for what cannot be read.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take 1e-3 for text, keep the last of equal keys, and raise what it likes."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose own keys are distinct; those that << merges in later may be set again."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = [key.value if key.value in ("<<", "=") else self.construct_object(key) for key in keys]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"'{twice}' is there twice", problem_mark=node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value; one that is not what its tag says, or an integer no float can hold, is a YAML error."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int):
                float(value)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f"'{short(str(node.value))}' is no {kind}; quote what is text", problem_mark=node.start_mark
            ) from None
        return value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^None$"), ["N"])
_TUPLE = "tag:recae:tuple"
_Loader.add_implicit_resolver(_TUPLE, re.compile(r"^\(\s*(\d+\s*,\s*)*(\d+\s*)?\)$"), ["("])
_Loader.add_constructor(
    _TUPLE, lambda loader, node: [int(number) for number in node.value.strip("()").split(",") if number.strip()]
)


def _with_absolute_paths(data: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    absolute = dict(data)
    for key in ("path", "items"):
        if isinstance(data.get(key), str):
            try:
                absolute[key] = str((folder / Path(data[key]).expanduser()).resolve())
            except (OSError, RuntimeError, ValueError) as error:  # no such user, a loop of links, a null character
                raise RecipeError(f"{where}: data.{key} = {short(repr(data[key]))} is no path ({error})") from None
    return absolute


def _apply(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = key.split(".")
    if path == ["models"] and value is None:
        _leave_out(raw, last, where)
        return
    place: Any = raw
    for depth, part in enumerate(path):
        inner = {} if place.get(part) is None else place[part]
        if not isinstance(inner, dict):
            raise RecipeError(f"{where}: {'.'.join(path[: depth + 1])} is a value, so there can be no '{key}'")
        # A copy: an anchor of the file's may have put one mapping in several places.
        place[part] = dict(inner)
        place = place[part]
    place[last] = value


def _leave_out(raw: dict[str, Any], label: str, where: str) -> None:
    sections = {section: raw[section] for section in _LABELLED if isinstance(raw.get(section), dict)}
    labels = [str(name) for name in sections.get("models", {})]
    if label not in labels:
        raise RecipeError(f"{where}: models.{label}: no model of this recipe{nearest(label, labels)}")
    for section, entries in sections.items():
        raw[section] = {name: one for name, one in entries.items() if str(name) != label}


def _made(model: Recommender, key: str, value: Any) -> Any:
    """Return what a model makes of a value of one of its hyper-parameters, beside the others that it has."""
    return getattr(build(model.name, **hyper_parameters_of(model) | {key: value}), key)


def _problem_in_words(problem: Any) -> str:
    kind, loc = problem["type"], problem["loc"]
    # What stands in the path of the error, but not in the recipe: the split's kind, and the branches of a union.
    path = [str(part) for part in loc if part not in (*_SPLIT_KINDS, "[key]") and "constrained-" not in str(part)]
    key = ".".join(path)
    if kind == "extra_forbidden":
        return f"unknown key '{key}'{nearest(path[-1], _keys_at(path[:-1], loc))}"
    if kind == "missing":
        return f"'{key}' is missing"
    if kind == "union_tag_invalid":
        return f"split.kind = '{problem['ctx']['tag']}' is unknown{nearest(str(problem['ctx']['tag']), _SPLIT_KINDS)}"
    if kind == "union_tag_not_found":
        return f"'split.kind' is missing; known: {', '.join(_SPLIT_KINDS)}"
    reason = None
    if loc[-1] == "[key]" or key == "name":
        reason = "a name starts with a letter, a digit or _, and goes on with those, dots and dashes"
    elif key == "split.held_out_users":
        reason = "a number of users, from 1, or a share of them, between 0 and 0.5, is wanted"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        reason = "a mapping of keys to values is wanted"
    elif kind == "tuple_type":
        reason = "a list is wanted, such as [ndcg@100, recall@20]"
    elif kind == "too_short":
        reason = "at least one is wanted"
    return problem_in_words(problem, key, reason)


_SPLITS: dict[str, type[Section]] = {
    "strong-generalisation": StrongGeneralisation,
    "global-time": GlobalTime,
    "leave-last-out": LeaveLastOut,
    "given": Given,
}
_SPLIT_KINDS = tuple(_SPLITS)
_SECTIONS: dict[str, type[Section]] = {
    "": Recipe,
    "data": DataSection,
    "evaluation": EvaluationSection,
    "expect": Expected,
    "data.columns": ColumnsSection,
}


def _keys_at(path: list[str], loc: tuple[Any, ...]) -> list[str]:
    section = _SPLITS[str(loc[1])] if path[:1] == ["split"] else _SECTIONS[".".join(path)]
    return list(section.model_fields)
