"""The README tells the truth: its Python runs, its files and commands exist, its recipes are read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from recae.models import MODELS
from recae.recipe import read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def test_its_python_runs():
    (block,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ndcg" in done.stdout


def test_its_way_to_use_a_model_directory_works(tmp_path):
    split = "import recae\nlog = recae.Interactions.from_events(recae.read_events('data/movielens-small'))\n"
    fit = f"model = recae.build('als', factors=4, iterations=2).fit(log.matrix)\nwhere = {str(tmp_path / 'model')!r}\n"
    save = "recae.save_model(where, model, log, seed=1)\n"
    (block,) = re.findall(r"^```\n(fitted = .*?)^```", README, re.S | re.M)
    lines = block.replace('"models/mult-dae"', "where").splitlines()
    shown = [f"print({line.split('    ')[0]})" if " = " not in line else line for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", split + fit + save + "\n".join(shown)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "tensor" in done.stdout


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
