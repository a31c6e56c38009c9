"""The README tells the truth: its Python runs, its files and commands exist, its recipes are read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recae.models import MODELS
from recae.reading import DataSection
from recae.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_recipes_that_it_says_can_be_tuned_are_those_with_ranges():
    (said,) = re.findall(r"`tune` section \(there is one in (.*?)\)", README)
    recipes = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("pipelines/*.yaml")}
    assert re.findall(r"`(.+?)`", said) == sorted(name for name, recipe in recipes.items() if "tune" in recipe)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> list[str]:
    """Run its blocks of Python one after the other, each alone, where the sample is; return what each printed.

    The last prints whether its last line is what it says there.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").symlink_to(ROOT / "data")
    *others, last = blocks("python")
    *lines, product = last.splitlines()
    assert product.endswith("# is score(histories)")
    lines += [f"product = {product}", "print(bool((product - fitted.model.score(histories)).abs().max() < 1e-4))"]
    said = []
    for block in (*others, "\n".join(lines)):
        done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), block
        said.append(done.stdout)
    return said


def test_its_python_says_how_good_a_model_is(printed):
    assert "ndcg" in printed[0]


def test_its_python_listens_to_a_training_that_is_validated(printed):
    epochs = printed[1].splitlines()
    assert [line.split()[0] for line in epochs] == ["1", "2", "3", "4", "5"]
    assert all("ndcg_at_100" in line for line in epochs)


def test_its_python_ends_with_the_scores(printed):
    assert printed[2] == "True\n"


def test_every_place_in_its_tree_exists():
    tree = README.split("## The house")[1].split("```")[1]
    for line in tree.strip().splitlines():
        place = line.split()[0]
        folder = "recae" if line.startswith("  ") else ""
        assert (ROOT / folder / place).exists(), place


def test_every_top_level_folder_is_in_its_tree():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout, so what belongs to the project cannot be listed")
    folders = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    tree = README.split("## The house")[1].split("```")[1]
    assert folders <= {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}


def test_every_model_is_in_its_table():
    table = README.split("## The models")[1].split("##")[0]
    assert [name for name in MODELS if f"`{name}`" not in table] == []


@pytest.mark.parametrize("recipe", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_read_and_its_models_can_be_built(recipe):
    assert read_recipe(recipe).name == recipe.stem


def test_the_recipe_for_ones_own_log_has_every_key_and_leaves_the_rules_to_their_defaults():
    own = (ROOT / "pipelines" / "own-log.yaml").read_text(encoding="utf-8")
    rules = yaml.safe_load("\n".join(re.findall(r"^  # (\w+: .*)$", own, re.M)))
    raw, plan = yaml.safe_load(own), read_recipe(ROOT / "pipelines" / "own-log.yaml")
    assert rules == DataSection(path="").rules == plan.data.rules
    assert {*raw} == {*Recipe.model_fields}
    assert {*raw["data"], *rules} == {*DataSection.model_fields} and not {*raw["data"]} & {*rules}
    assert {*raw["split"]} == {*type(plan.split).model_fields}
    assert "hybrid" in plan.models  # what `recae train` takes unless told otherwise
