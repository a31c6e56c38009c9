"""The wheel holds recae alone, and is enough to recommend and embed, anywhere, without the training data."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import USERS, call, write_inputs

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy of the project, without the network."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, and building it in isolation would need the network")
    # A copy: setuptools leaves a build folder behind, and packs what it finds in an old one.
    project = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (PROJECT / name).exists():
            shutil.copyfile(PROJECT / name, project / name)
    for name in ("recae", "data", "pipelines", "tests"):
        shutil.copytree(
            PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "raw", "processed")
        )
    (project / "mlflow").mkdir()
    (project / "mlflow" / "README.md").touch()
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    options = ["--quiet", "--disable-pip-version-check", "--wheel-dir", str(project / "dist"), str(project)]
    done = subprocess.run([*build, *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (path,) = (project / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_recae_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2
    assert {top.split("-")[0] for top in tops} == {"recae"}
    assert next(top for top in tops if top != "recae").endswith(".dist-info")
    package = PROJECT / "recae"
    sources = {str(path.relative_to(PROJECT)) for path in package.rglob("*") if path.is_file()}
    sources = {name for name in sources if "__pycache__" not in name}
    assert {name for name in names if name.startswith("recae/")} == sources
    assert {"recae/py.typed", "recae/tracking/served.py", "recae/templates/report.html"} <= sources


def test_the_wheel_alone_recommends_and_embeds_from_a_model_directory(wheel, tmp_path, monkeypatch):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    training = tmp_path / "training"
    training.mkdir()
    monkeypatch.chdir(write_inputs(training))
    settings = ["--set", "hidden=8", "--set", "latent=4", "--set", "epochs=1"]
    assert call("train", "mult-vae", "log.csv", "--out", "../model", *settings).code == 0
    (tmp_path / "elsewhere").mkdir()
    shutil.move("log.csv", tmp_path / "elsewhere" / "others.csv")
    shutil.rmtree(training)

    script = (
        "import os, sys\n"
        "import recae.cli\n"
        "assert recae.__file__.startswith(os.environ['PYTHONPATH']), recae.__file__\n"
        "for words in (['recommend', '-n', '4'], ['embed']):\n"
        "    sys.argv = ['recae', *words, '../model', 'others.csv', '--out', f'{words[0]}.parquet']\n"
        "    try: recae.cli.main()\n"
        "    except SystemExit as end: assert not end.code, end\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert pq.read_table(tmp_path / "elsewhere" / "recommend.parquet").num_rows == 4 * USERS
    assert pq.read_table(tmp_path / "elsewhere" / "embed.parquet").num_rows == USERS
