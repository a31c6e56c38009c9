"""A model directory as a model that MLflow can load and serve."""

from pathlib import Path

import mlflow
import pandas as pd
import pyarrow.parquet as pq
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from recae import __version__
from recae.artifact import ITEMS

SCRIPT = Path(__file__).with_name("served.py")


def write_mlflow_model(directory: Path, draft: Path, run_id: str, model_id: str) -> None:
    """Write to `draft` what MLflow keeps of a model directory: a copy of it, its code, its signature, an example.

    The example asks for the neighbours of the most popular items: it names no user.
    """
    items = pq.read_table(directory / ITEMS, columns=["item_id", "count"]).to_pandas()
    popular = items.nlargest(3, "count")["item_id"]
    whole = popular.dtype == "int64"  # unsigned ids go beyond MLflow's long, and travel as strings
    history = popular.tolist() if whole else popular.astype(str).tolist()
    model = Model(run_id=run_id, model_uuid=model_id, model_id=model_id)
    mlflow.pyfunc.save_model(
        path=str(draft),
        mlflow_model=model,
        python_model=str(SCRIPT),
        artifacts={"model": str(directory)},
        signature=_signature(DataType.long if whole else DataType.string),
        input_example=(pd.DataFrame({"history": [history, history[:1]]}), {"n": 10}),
        pip_requirements=[f"recae=={__version__}", f"mlflow=={mlflow.__version__}"],
    )
    # MLflow notes where on this machine the directory and the code came from; it loads by the names alone.
    flavour = model.flavors["python_function"]
    flavour["model_code_path"] = SCRIPT.name
    for artifact in flavour["artifacts"].values():
        artifact["uri"] = artifact["path"]
    model.save(str(draft / "MLmodel"))


def _signature(item_id: DataType) -> ModelSignature:
    return ModelSignature(
        inputs=Schema([ColSpec(Array(item_id), name="history")]),
        outputs=Schema(
            [
                ColSpec(DataType.long, name="user_row"),
                ColSpec(item_id, name="item_id"),
                ColSpec(DataType.integer, name="rank"),
                ColSpec(DataType.float, name="score"),
                ColSpec(DataType.string, name="title", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("n", DataType.long, 10)]),
    )
