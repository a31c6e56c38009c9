"""What models there are, and what their hyper-parameters are: as the models' own files have it, and nothing beside."""

import json
from dataclasses import fields
from typing import get_args

import pytest
from commands import call

from recae import options
from recae.errors import ModelError
from recae.manual import all_pages, page
from recae.models import MODELS, build
from recae.models.base import EmbeddingKind, hyper_parameters_of
from recae.options import MODEL_NAMES


def test_the_names_that_help_shows_are_the_models() -> None:
    assert list(MODELS) == list(MODEL_NAMES) == [one.name for one in all_pages()]


def test_the_models_that_help_shows_for_anomalies_and_generate_are_those_that_can() -> None:
    explainers = [name for name, one in MODELS.items() if hasattr(one, "log_likelihoods") and one.folds_in]
    generators = [name for name, one in MODELS.items() if hasattr(one, "sample")]
    assert (explainers, generators) == (list(options.EXPLAINERS), list(options.GENERATORS))


def test_the_kinds_of_embeddings_that_help_shows_are_those_of_the_models() -> None:
    assert get_args(options.EmbeddingKind) == get_args(EmbeddingKind)


@pytest.mark.parametrize("name", MODELS)
def test_a_page_has_every_field_with_its_default_and_a_meaning(name: str) -> None:
    told = page(name)
    defaults = json.loads(json.dumps(hyper_parameters_of(build(name))))
    assert {one.name: one.default for one in told.hyper_parameters} == defaults
    assert [one.name for one in told.hyper_parameters] == [field.name for field in fields(MODELS[name])]  # type: ignore[arg-type]
    assert all(one.meaning and one.takes for one in told.hyper_parameters)
    assert told.what.endswith(".") and told.about


def test_a_page_says_what_a_model_can_do() -> None:
    both = get_args(EmbeddingKind)
    able = {one.name: (one.folds_in, one.embeddings) for one in all_pages()}
    assert (able["ease"], able["bpr"], able["mult-vae"]) == ((True, ()), (False, both), (True, both))
    assert able["hybrid"] == (True, ("latent",))
    (hybrid,) = (line for line in call("models").out.splitlines() if line.split()[:1] == ["hybrid"])
    assert hybrid.split()[-2:] == ["yes", "latent"]


def test_what_a_hyper_parameter_takes_is_what_is_checked() -> None:
    takes = {one.name: one.takes for one in page("mult-vae").hyper_parameters}
    assert takes["dropout"] == "a number ≥ 0 and < 1"
    assert takes["latent"] == "a whole number > 0"
    assert takes["hidden"] == "a list, each: a whole number > 0"
    assert takes["tied"] == "true or false"


def test_an_unknown_model_is_told_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'multvae'; did you mean 'mult-vae'\?"):
        page("multvae")


# The command.


def test_models_lists_every_model_in_a_line() -> None:
    done = call("models")
    assert (done.code, done.err) == (0, "")
    assert [
        line.split()[0] for line in done.out.splitlines() if line.split()[:1] and line.split()[0] in MODELS
    ] == list(MODELS)
    assert [one["name"] for one in json.loads(call("models", "--json").out)] == list(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_models_shows_one_with_its_defaults(name: str) -> None:
    done = call("models", name)
    assert (done.code, done.err) == (0, "")
    for parameter, default in hyper_parameters_of(build(name)).items():
        spelled = json.dumps(default)
        assert any(line.split()[:1] == [parameter] and spelled in line for line in done.out.splitlines())
    told = json.loads(call("models", name, "--json").out)
    assert (told["name"], [one["name"] for one in told["hyper_parameters"]]) == (
        name,
        list(hyper_parameters_of(build(name))),
    )


def test_models_of_an_unknown_name_is_one_line() -> None:
    done = call("models", "multvae")
    assert (done.code, done.out, done.err) == (2, "", "recae: unknown model 'multvae'; did you mean 'mult-vae'?\n")
