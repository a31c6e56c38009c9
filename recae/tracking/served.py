"""The code that MLflow keeps beside a model directory and runs to serve it ("models from code": nothing is pickled).

In:  a table with a row per user and a column `history`, a list of item ids; the parameter n (default 10).
Out: user_row (the number of the row, from 0), item_id, rank (from 1), score, and title where titles are known.

Fewer than n rows where fewer items are eligible, and none for a user none of whose items the model knows: that
ranking would not be about the user. If that is every user, it is a mistake, and an error.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from recae.artifact import load_model
from recae.errors import InputError
from recae.interactions import IdMap
from recae.ranking import top_n
from recae.tables import recommendations


class Served(PythonModel):
    """A model directory, as MLflow serves it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model directory."""
        self.fitted = load_model(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return recommendations; InputError if no row has an item that the model knows, or n is below 1."""
        histories = self.fitted.histories(model_input["history"].tolist())
        rows = histories.getnnz(axis=1).nonzero()[0]
        if len(model_input) and not len(rows):
            raise InputError(
                f"none of the {len(model_input)} histories has an item that the model knows; "
                f"its ids look like {self.fitted.items.ids[:1].tolist()[0]!r}"
            )
        top = top_n(self.fitted.model.score, histories[rows], (params or {}).get("n", 10))
        users = IdMap(pd.Index(rows))
        table = recommendations(top, users, self.fitted.items, self.fitted.item_table)
        served: pd.DataFrame = table.rename_columns({"user_id": "user_row"}).to_pandas()
        return served


set_model(Served())
