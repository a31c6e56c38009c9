"""A recipe is read as it stands, or refused in one line that names the file, the key and what is wanted."""

import re
from pathlib import Path

import pytest
import yaml
from commands import RECIPE

from recae.errors import InputError, ModelError, RecipeError
from recae.interactions import Preparation
from recae.models import MODELS
from recae.models.base import hyper_parameters_of
from recae.ranges import Choices, Span, read_range
from recae.recipe import (
    DEFAULT_METRICS,
    GlobalTime,
    LeaveLastOut,
    StrongGeneralisation,
    read_recipe,
    read_settings,
    read_yaml,
)


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_what_is_expected_goes_with_a_split_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\ndata: {path: log}\nexpect: {users: 3}\nmodels: {ease: }\nsplit: {kind: given}\n")
    with pytest.raises(RecipeError, match="expect goes with a split that recae makes"):
        read_recipe(path)
    assert read_recipe(path, {"split.kind": "leave-last-out"}).expect.users == 3
    with pytest.raises(RecipeError, match=r"unknown key 'expect\.user'; did you mean 'users'"):
        read_recipe(path, {"expect.user": 4, "split.kind": "leave-last-out"})


def test_nobody_is_left_out_of_a_log_that_comes_split(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\ndata: {path: log}\nmodels: {ease: }\nsplit: {kind: given}\n")
    plan = read_recipe(path)
    assert plan.data.min_items == 1
    path.write_text(plan.resolved(), encoding="utf-8")
    assert read_recipe(path).data == plan.data
    for key in ("data.min_items", "data.min_users"):
        with pytest.raises(RecipeError, match=f"{key} goes with a split that recae makes.*; leave it out"):
            read_recipe(path, {key: 5})
        assert read_recipe(path, {key: 5, "split": {"kind": "leave-last-out"}})


def test_what_is_not_said_has_a_default(tmp_path):
    path = tmp_path / "least.yaml"
    path.write_text("name: least\ndata: {path: log.csv}\nmodels: {ease: }\n", encoding="utf-8")
    plan = read_recipe(path)
    assert plan.split == StrongGeneralisation(kind="strong-generalisation")
    assert plan.evaluation.metrics == DEFAULT_METRICS
    assert plan.seed == 42
    assert plan.data.preparation == Preparation()
    assert hyper_parameters_of(plan.build_models()["ease"]) == hyper_parameters_of(MODELS["ease"]())


def test_paths_of_the_data_start_from_the_recipe_and_those_of_overrides_from_here(recipe, tmp_path, monkeypatch):
    assert read_recipe(recipe).data.path == str(tmp_path / "log.csv")
    assert read_recipe(recipe).data.items == str(tmp_path / "items.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = read_recipe(Path("..") / "tiny.yaml", {"data.path": "mine.csv", "data.items": None})
    assert (plan.data.path, plan.data.items) == (str(tmp_path / "elsewhere" / "mine.csv"), None)
    assert read_recipe(recipe, {"data.path": "~/log.csv"}).data.path == str(Path.home() / "log.csv")


def test_the_resolved_recipe_is_a_recipe_that_says_the_same(recipe, tmp_path):
    everyone = {name: {} for name in MODELS} | {"strong": {"model": "ease", "l2": 2000}, "deep": {"model": "mult-vae"}}
    plan = read_recipe(recipe, {"models": everyone, "models.deep.hidden": [30, 20], "split": {"kind": "global-time"}})
    again = tmp_path / "again.yaml"
    again.write_text(plan.resolved(), encoding="utf-8")
    assert read_recipe(again).resolved() == plan.resolved()
    assert read_recipe(again).build_models() == plan.build_models()
    assert isinstance(read_recipe(again).split, GlobalTime)
    assert yaml.safe_load(plan.resolved())["models"]["strong"] == {"model": "ease", "l2": 2000.0}
    assert yaml.safe_load(plan.resolved())["models"]["deep"]["hidden"] == [30, 20]


def test_ranges_are_read_as_the_model_takes_them(recipe, tmp_path):
    settings = [
        "tune.ease={l2: {low: 1, high: 1e3, log: true}}",
        "tune.mult-vae.latent={low: 2, high: 9}",
        "tune.mult-vae.hidden=[[], 8, [8, 4]]",
        "tune.mult-vae.tied={choices: [true, false]}",
    ]
    with pytest.raises(ModelError, match="tied weights need a hidden layer"):
        read_recipe(recipe, read_settings([*settings, "models.mult-vae.hidden=[]"]))
    plan = read_recipe(recipe, read_settings(settings))
    ranges = plan.read_ranges()
    assert ranges == {
        "ease": {"l2": Span(1.0, 1000.0, log=True)},
        "mult-vae": {
            "latent": Span(2, 9),
            "hidden": Choices(([], [8], [8, 4])),
            "tied": Choices((True, False)),
        },
    }
    assert {type(ranges["ease"]["l2"].low), type(ranges["mult-vae"]["latent"].low)} == {float, int}
    again = tmp_path / "again.yaml"
    again.write_text(plan.resolved(), encoding="utf-8")
    assert read_recipe(again).read_ranges() == ranges
    assert read_recipe(again).resolved() == plan.resolved()
    assert "tune" not in yaml.safe_load(read_recipe(recipe, {"tune.ease": {}}).resolved())


def test_a_label_may_stand_for_another_setting_of_a_model(recipe):
    models = read_recipe(recipe, {"models": {"a": {"model": "ease", "l2": 1}, "ease": None}}).build_models()
    assert {label: model.name for label, model in models.items()} == {"a": "ease", "ease": "ease"}


def test_overrides_reach_every_level_and_may_add(recipe):
    plan = read_recipe(
        recipe, read_settings(["models.ease.l2=3e2", "models.als={}", "data.columns.user=who", "seed=7"])
    )
    assert plan.build_models()["ease"] == MODELS["ease"](l2=300)
    assert "als" in plan.models
    assert (plan.data.columns.user, plan.seed) == ("who", 7)


def test_null_leaves_a_model_out_and_its_ranges(recipe):
    ranges = {"tune.ease": {"l2": [1, 2]}, "tune.mult-vae": {"latent": [2, 4]}}
    plan = read_recipe(recipe, ranges | read_settings(["models.ease=null"]))
    assert [*plan.models] == ["popularity", "mult-vae"]
    assert [*plan.tune] == ["mult-vae"]
    assert "ease" not in plan.resolved()
    with pytest.raises(RecipeError, match=r"models = {}: at least one is wanted"):
        read_recipe(recipe, read_settings([f"models.{label}=null" for label in ("popularity", "ease", "mult-vae")]))


def test_some_of_a_recipes_models_are_kept_in_its_order_with_their_ranges(recipe):
    plan = read_recipe(recipe, {"tune.ease": {"l2": [1, 2]}, "tune.mult-vae": {"latent": [2, 4]}})
    some = plan.only(["ease", "popularity"])
    assert ([*some.models], [*some.tune]) == (["popularity", "ease"], ["ease"])
    assert some.models["ease"] == plan.models["ease"] and some.data == plan.data
    assert plan.only([]).resolved() == plan.resolved()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k=1e-3", 0.001),
        ("k=-1E5", -1e5),
        ("k=.5e1", 5.0),
        ("k=3", 3),
        ("k=0.5", 0.5),
        ("k=e5", "e5"),
        ("k=true", True),
        ("k=", None),
        ("k=[600, 200]", [600, 200]),
        ("k=()", []),
        ("k=(600,)", [600]),
        ("k=(600)", [600]),
        ("k=( 600, 200 )", [600, 200]),
        ("k=(600 or so)", "(600 or so)"),
        ("k='(600,)'", "(600,)"),
        ("k=a=b", "a=b"),
        ("k=1e", "1e"),
    ],
)
def test_a_setting_is_read_as_people_write_numbers(setting, value):
    read = read_settings([setting])["k"]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_prints_of_itself_is_a_setting(name):
    models = [MODELS[name]()] + [MODELS[name](hidden=widths) for widths in ((), (600, 200)) if name.startswith("mult")]
    for model in models:
        printed = [setting.strip() for setting in re.findall(r"\w+=(?:\(.*?\)|[^,)]*)", repr(model))]
        assert MODELS[name](**read_settings(printed)) == model


@pytest.mark.parametrize("setting", ["l2", "=3", "models..l2=3", "k=[1", "k={a: 1, a: 2}", "k=!<tag:recae:tuple> x"])
def test_a_setting_that_is_none_is_refused(setting):
    with pytest.raises(RecipeError, match=r"^--set .*: (write it as key=value|the value cannot be read)"):
        read_settings([setting])


# What PyYAML's constructors stumble over with errors of other kinds than its own.
STUMBLES = [
    ("2020-13-45", "'2020-13-45' is no timestamp"),
    ("!!int x", "'x' is no int"),
    ("!!int ''", "'' is no int"),
    ("!!float abc", "'abc' is no float"),
    ("!!bool maybe", "'maybe' is no bool"),
    ("!!timestamp abc", "'abc' is no timestamp"),
    ("9" * 5000, f"'{'9' * 60}…' is no int"),
    ("0x" + "f" * 5000, f"'0x{'f' * 58}…' is no int"),
    ("{2020-13-45: 1}", "'2020-13-45' is no timestamp"),
    ("[" * 3000, "it is nested too deeply"),
    ("[" * 3000 + "]" * 3000, "it is nested too deeply"),
    ("{<<: 3}", "expected a mapping or list of mappings for merging"),
]


@pytest.mark.parametrize(("value", "said"), STUMBLES, ids=lambda value: value[:20])
def test_a_value_that_is_not_what_it_looks_like_is_told(value, said, recipe):
    recipe.write_text(f"{RECIPE}seed: {value}\n", encoding="utf-8")
    for read in (lambda: read_settings([f"seed={value}"]), lambda: read_recipe(recipe)):
        with pytest.raises(RecipeError) as error:
            read()
        assert said in str(error.value)
        assert "cannot be read as YAML" in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500


def test_anchors_and_merge_keys_work_and_an_override_reaches_one_place_alone(recipe):
    recipe.write_text(
        "name: merged\ndata: {path: log.csv}\nmodels:\n"
        "  ease: &ease {l2: 5}\n"
        "  same: &same {<<: *ease, model: ease}\n"
        "  alias: *same\n"
        "  strong: {<<: [*same, *ease], l2: 2000}\n",
        encoding="utf-8",
    )
    models = read_recipe(recipe, {"models.same.l2": 7}).build_models()
    assert {label: hyper_parameters_of(model)["l2"] for label, model in models.items()} == {
        "ease": 5,
        "same": 7,
        "alias": 5,
        "strong": 2000,
    }
    recipe.write_text("x: {y: &y {<<: &z {seed: 1}, seed: 2}}\n<<: *y\n" + RECIPE, encoding="utf-8")
    with pytest.raises(RecipeError, match="unknown key 'x'"):
        read_recipe(recipe)
    assert read_yaml("x: {y: &y {<<: &z {seed: 1}, seed: 2}}\nw: {<<: *y}\n") == {
        "x": {"y": {"seed": 2}},
        "w": {"seed": 2},
    }


@pytest.mark.parametrize("path", ["~there-is-no-such-user/log.csv", "log\0.csv"])
@pytest.mark.parametrize("key", ["path", "items"])
def test_what_is_no_path_is_told(key, path, recipe):
    with pytest.raises(RecipeError) as error:
        read_recipe(recipe, {f"data.{key}": path})
    assert str(error.value).startswith(f"{recipe}: data.{key} = {path!r} is no path (")


@pytest.mark.parametrize(
    "settings", [["split.test_share=0.3", "split.kind=global-time"], ["split.kind=leave-last-out"]]
)
def test_another_kind_of_split_starts_the_section_anew(settings, recipe):
    for order in (settings, settings[::-1]):
        split = read_recipe(recipe, read_settings(order)).split
        assert split in (GlobalTime(kind="global-time", test_share=0.3), LeaveLastOut(kind="leave-last-out"))


def test_the_same_kind_of_split_keeps_its_keys(recipe):
    split = read_recipe(recipe, read_settings(["split.kind=strong-generalisation", "split.seed=3"])).split
    assert split == StrongGeneralisation(kind="strong-generalisation", held_out_users=12, seed=3)


BAD_KEYS = [
    ("nam=1", "unknown key 'nam'; did you mean 'name'?"),
    ("data.pth=x", "unknown key 'data.pth'; did you mean 'path'?"),
    ("data.columns.usr=x", "unknown key 'data.columns.usr'; did you mean 'user'?"),
    ("split.sed=1", "unknown key 'split.sed'; did you mean 'seed'?"),
    ("split.test_share=0.1", "unknown key 'split.test_share'; did you mean 'held_out_share'?"),
    ("evaluation.metric=[ndcg@10]", "unknown key 'evaluation.metric'; did you mean 'metrics'?"),
    ("models.ease.l3=1", "models.ease: ease has no hyper-parameter 'l3'; known: l2"),
    ("models.mult-vae.latnt=1", "models.mult-vae: mult-vae has no hyper-parameter 'latnt'; did you mean 'latent'?"),
    ("models.eese={}", "models.eese: unknown model 'eese'; did you mean 'ease'?"),
    ("models.eese=", "models.eese: no model of this recipe; did you mean 'ease'?"),
    ("models.a.model=eas", "models.a: unknown model 'eas'; did you mean 'ease'?"),
    ("models.ease.name=x", "models.ease: ease has no hyper-parameter 'name'"),
    ("models.ease.self=x", "models.ease: ease has no hyper-parameter 'self'"),
    ("split.kind=global_time", "split.kind = 'global_time' is unknown; did you mean 'global-time'?"),
    ("evaluation.metrics=[ncdg@10]", "evaluation.metrics: unknown metric 'ncdg@10'; did you mean 'ndcg'?"),
    ("data.path.x=1", "data.path is a value, so there can be no 'data.path.x'"),
]

BAD_RANGES = [
    ("tune.eese={l2: [1]}", "tune.eese: no model of this recipe; did you mean 'ease'?"),
    ("tune.ease={l3: [1]}", "tune.ease: ease has no hyper-parameter 'l3'; known: l2"),
    ("tune.mult-vae={latnt: [1]}", "tune.mult-vae: mult-vae has no hyper-parameter 'latnt'; did you mean 'latent'?"),
    ("tune.ease={model: [als]}", "tune.ease: ease has no hyper-parameter 'model'; known: l2"),
    ("tune.ease={l2: {low: 1, hihg: 2}}", "unknown key 'tune.ease.l2.hihg'; did you mean 'high'?"),
    ("tune.ease={l2: {low: 1, 5: 2}}", "unknown key 'tune.ease.l2.5'; known: low, high, log, choices"),
    ("tune.ease={l2: {low: 1}}", "'tune.ease.l2.high' is missing; write {low: …, high: …}, with log: true for"),
    ("tune.ease={l2: 5}", "tune.ease.l2 = 5: write {low: …, high: …}, with log: true for magnitudes, or a list"),
    ("tune.ease={l2: {}}", "'tune.ease.l2.low' is missing"),
    ("tune.ease={l2: }", "tune.ease.l2 = None: write {low: …"),
    ("tune.ease={l2: []}", "tune.ease.l2 = []: a list of choices is wanted"),
    ("tune.ease={l2: {choices: 5}}", "tune.ease.l2 = 5: a list of choices is wanted"),
    ("tune.ease={l2: {choices: [5], log: true}}", "tune.ease.l2 has choices, which need no log: leave one of the two"),
    ("tune.ease={l2: [5, 6, 5.0]}", "tune.ease.l2: 5.0 is there twice"),
    ("tune.sparse-ae={penalty: [1, 2, 1]}", "tune.sparse-ae: no model of this recipe"),
    ("tune.ease={l2: [5, high]}", "tune.ease: ease: l2 = 'high': input should be a valid number"),
    ("tune.ease={l2: {low: 2, high: 2}}", "tune.ease.l2: low = 2 is not below high = 2"),
    ("tune.ease={l2: {low: 2, high: many}}", "tune.ease.l2.high = 'many': a number is wanted; or a list of choices"),
    ("tune.ease={l2: {low: true, high: 2}}", "tune.ease.l2.low = True: a number is wanted"),
    ("tune.ease={l2: {low: -1, high: 2}}", "tune.ease: ease: l2 = -1: input should be greater than 0"),
    ("tune.ease={l2: {low: 1, high: .inf}}", "tune.ease: ease: l2 = inf: input should be a finite number"),
    ("tune.ease={l2: {low: 1, high: 2, log: 10}}", "tune.ease.l2.log = 10: true or false is wanted"),
    ("tune.mult-vae={kl_cap: {low: 0, high: 2, log: true}}", "tune.mult-vae.kl_cap: low = 0 has no logarithm"),
    ("tune.mult-vae={dropout: {low: 0, high: 1}}", "tune.mult-vae: mult-vae: dropout = 1: input should be less than 1"),
    (
        "tune.mult-vae={latent: {low: 2.5, high: 9}}",
        "tune.mult-vae: mult-vae: latent = 2.5: input should be a valid int",
    ),
    ("tune.mult-vae={hidden: {low: 2, high: 9}}", "tune.mult-vae.hidden is no number that could have a range; write"),
    ("tune.mult-vae={tied: {low: 0, high: 1}}", "tune.mult-vae: mult-vae: tied = 0: input should be a valid boolean"),
    ("tune=5", "tune = 5: a mapping of keys to values is wanted"),
    ("tune.ease=", "tune.ease = None: a mapping of keys to values is wanted"),
    ("tune.ease.l2.low=1", "'tune.ease.l2.high' is missing"),
]

BAD_VALUES = [
    ("name=3", "name = 3: a name starts with"),
    ("name=a/b", "name = 'a/b': a name starts with"),
    ("name=..", "name = '..': a name starts with"),
    ("data=log.csv", "data = 'log.csv': a mapping of keys to values is wanted"),
    ("data=", "data = None: a mapping of keys to values is wanted"),
    ("data.path=3", "data.path = 3: input should be a valid string"),
    ("data.min_items=0", "data.min_items = 0: input should be greater than or equal to 1"),
    ("data.min_items='5'", "data.min_items = '5': input should be a valid integer"),
    ("data.min_value=high", "data.min_value = 'high': input should be a valid number"),
    ("data.min_value=.nan", "data.min_value = nan: input should be a finite number"),
    ("data.values=stars", "data.values = 'stars': input should be 'binary' or 'keep'"),
    ("data.skip_bad_rows=1", "data.skip_bad_rows = 1: input should be a valid boolean"),
    ("data.columns=user", "data.columns = 'user': a mapping of keys to values is wanted"),
    ("split=global-time", "split = 'global-time': a mapping of keys to values is wanted"),
    ("split={seed: 1}", "'split.kind' is missing; known: strong-generalisation, global-time"),
    ("split.held_out_users=0", "split.held_out_users = 0: a number of users, from 1, or a share of them"),
    ("split.held_out_users=0.5", "split.held_out_users = 0.5: a number of users, from 1, or a share of them"),
    ("split.held_out_users=few", "split.held_out_users = 'few': a number of users, from 1, or a share of them"),
    ("split.held_out_share=1", "split.held_out_share = 1: input should be less than 1"),
    ("split.seed=-1", "split.seed = -1: input should be greater than or equal to 0"),
    ("seed=4294967296", "seed = 4294967296: input should be less than 4294967296"),
    ("seed=1.5", "seed = 1.5: input should be a valid integer"),
    ("seed=true", "seed = True: input should be a valid integer"),
    ("evaluation=", "evaluation = None: a mapping of keys to values is wanted"),
    ("evaluation.metrics=[]", "evaluation.metrics = []: at least one is wanted"),
    ("evaluation.metrics=ndcg@10", "evaluation.metrics = 'ndcg@10': a list is wanted"),
    ("evaluation.metrics=[5]", "evaluation.metrics.0 = 5: input should be a valid string"),
    ("evaluation.metrics=[ndcg]", "evaluation.metrics: metric 'ndcg': say how many places"),
    ("evaluation.metrics=[coverage@5]", "evaluation.metrics: 'coverage@5' comes first and orders the models"),
    ("models={}", "models = {}: at least one is wanted"),
    ("models=", "models = None: a mapping of keys to values is wanted"),
    ("models=[ease]", "models = ['ease']: a mapping of keys to values is wanted"),
    ("models.ease=5", "models.ease = 5: a mapping of keys to values is wanted"),
    ("models.ease=[]", "models.ease = []: a mapping of keys to values is wanted"),
    ("models={../out: {model: ease}}", "models.../out = '../out': a name starts with"),
    ("models.ease.l2=-1", "models.ease: ease: l2 = -1: input should be greater than 0"),
    ("models.ease.l2=high", "models.ease: ease: l2 = 'high': input should be a valid number"),
    ("models.ease.l2=.inf", "models.ease: ease: l2 = inf: input should be a finite number"),
    ("models.mult-vae.epochs=2.5", "models.mult-vae: mult-vae: epochs = 2.5: input should be a valid integer"),
    ("models.mult-vae.dropout=1", "models.mult-vae: mult-vae: dropout = 1: input should be less than 1"),
    ("models.mult-vae.hidden=[8, 0]", "models.mult-vae: mult-vae: hidden = 0: input should be greater than 0"),
]


@pytest.mark.parametrize(("setting", "said"), BAD_KEYS + BAD_RANGES + BAD_VALUES, ids=lambda value: str(value)[:40])
def test_what_makes_no_sense_is_told_by_file_and_key(setting, said, recipe):
    with pytest.raises((RecipeError, ModelError)) as error:
        read_recipe(recipe, read_settings([setting]))
    assert str(error.value).startswith(f"{recipe}: {said}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("key", ["name", "data", "models"])
def test_what_is_missing_is_told(key, recipe):
    raw = yaml.safe_load(RECIPE)
    del raw[key]
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(RecipeError, match=f"tiny.yaml: '{key}' is missing"):
        read_recipe(recipe)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a recipe is a mapping with the keys name, data, split, expect, evaluation, models, tune, seed"),
        (b"# nothing\n", "a recipe is a mapping"),
        (b"- ease\n- als\n", "a recipe is a mapping"),
        (b"just words", "a recipe is a mapping"),
        (b"name: [unclosed", "cannot be read as YAML"),
        (b"name: a\n\tdata: b", "cannot be read as YAML"),
        (b"models:\n  ease: {l2: 1}\n  ease: {l2: 2}\n", "cannot be read as YAML ('ease' is there twice"),
        (b"[1, 2]: 3", "cannot be read as YAML"),
        (b"name: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "cannot be read as YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_told(content, said, recipe):
    recipe.write_bytes(content)
    with pytest.raises(RecipeError) as error:
        read_recipe(recipe)
    assert str(error.value).startswith(f"{recipe}: {said}")
    assert "\n" not in str(error.value)


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such recipe"):
        read_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="is a directory; give a recipe in it"):
        read_recipe(tmp_path)


def test_null_may_be_a_choice_but_once():
    assert read_range("l2", [None, 2.0], lambda value: value) == Choices((None, 2.0))
    with pytest.raises(RecipeError, match="l2: null is there twice"):
        read_range("l2", [None, 2.0, None], lambda value: value)
