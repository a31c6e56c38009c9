"""The tables recae gives to others, in one spelling everywhere.

    recommendations   user_id, item_id, rank (from 1), score; sorted by user, then rank; no padding
    embeddings        user_id or item_id, embedding (a fixed-size list of float32)
    anomalies         user_id, surprise, expected, z, percentile, history_length, surprising_items (a list of ids);
                      sorted by z, the oddest first
    events            user_id, item_id, and a value if there are counts; sorted by user, then item's column

All are Parquet; the file's metadata, under the key `recae`, says which model made it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.anomalies import Anomalies
from recae.files import METADATA_KEY, whole_file
from recae.interactions import IdMap
from recae.ranking import NO_ITEM, TopN

ROWS_OF_GROUP = 2**18
"""How many rows a row group of a table that is written in pieces has at least, but for the last."""


def recommendations(top: TopN, users: IdMap, items: IdMap, item_table: pd.DataFrame | None = None) -> pa.Table:
    """Return ranked lists as a table of ids; with an item table that has titles, each row carries its title.

    `top` holds one row for each of `users`, in order. Gaps (NO_ITEM) leave no row.
    """
    row, position = np.nonzero(top.items != NO_ITEM)
    column = top.items[row, position]
    columns = {
        "user_id": pa.array(users.to_ids(row)),
        "item_id": pa.array(items.to_ids(column)),
        "rank": pa.array((position + 1).astype(np.int32)),
        "score": pa.array(top.scores[row, position]),
    }
    if item_table is not None and "title" in item_table:
        columns["title"] = pa.array(item_table["title"].iloc[column].astype("string"))
    return pa.table(columns)


def embeddings(vectors: NDArray[np.float32], ids: IdMap, id_column: str) -> pa.Table:
    """Return vectors, one row for each of `ids` in order, as a table of ids and fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
    return pa.table(
        {
            id_column: pa.array(ids.ids),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
    )


def anomalies(
    found: Anomalies,
    odd_items: Sequence[NDArray[np.integer]],
    users: IdMap,
    items: IdMap,
    item_table: pd.DataFrame | None = None,
) -> pa.Table:
    """Return ranked users as a table of ids; with an item table that has titles, each row carries those, too.

    `found.rows` are rows of `users`; `odd_items` holds the columns of each one's most surprising items.
    """
    ends = np.cumsum([0, *map(len, odd_items)], dtype=np.int32)
    column = np.concatenate([np.empty(0, np.int64), *odd_items])
    columns = {
        "user_id": pa.array(users.to_ids(found.rows)),
        "surprise": pa.array(found.surprise),
        "expected": pa.array(found.expected),
        "z": pa.array(found.z),
        "percentile": pa.array(found.percentile),
        "history_length": pa.array(found.lengths),
        "surprising_items": pa.ListArray.from_arrays(ends, pa.array(items.to_ids(column))),
    }
    if item_table is not None and "title" in item_table:
        titles = pa.array(item_table["title"].iloc[column].astype("string"))
        columns["surprising_titles"] = pa.ListArray.from_arrays(ends, titles)
    return pa.table(columns)


def events(histories: csr_matrix, users: Sequence[str], items: IdMap, *, values: bool) -> pa.Table:
    """Return histories, one row for each of `users` in order, as a log: user_id, item_id, and maybe the values."""
    row = np.repeat(np.arange(len(users)), np.diff(histories.indptr))
    columns = {
        "user_id": pa.array(np.asarray(users, dtype=object)[row], pa.string()),
        "item_id": pa.array(items.to_ids(histories.indices)),
    }
    return pa.table(columns | ({"value": pa.array(histories.data)} if values else {}))


def write_table(
    path: Path, table: pa.Table | pd.DataFrame, *, about: Mapping[str, object] | None = None, overwrite: bool = False
) -> None:
    """Write a Parquet file whole or not at all; `about` goes into its metadata as JSON under the key `recae`."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    if about is not None:
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(dict(about), sort_keys=True)})
    with whole_file(path, overwrite=overwrite) as draft:
        pq.write_table(table, draft, compression="zstd")


def write_in_pieces(
    path: Path, pieces: Iterable[pa.Table], *, about: Mapping[str, object], overwrite: bool = False
) -> int:
    """Write a table that is never there as a whole as `write_table` does, at least one piece; return its rows."""
    rows, metadata = 0, {METADATA_KEY: json.dumps(dict(about), sort_keys=True)}
    with whole_file(path, overwrite=overwrite) as draft, ExitStack() as opened:
        writer = None
        for piece in _large(pieces):
            piece = piece.replace_schema_metadata(metadata)
            writer = writer or opened.enter_context(pq.ParquetWriter(draft, piece.schema, compression="zstd"))
            writer.write_table(piece)
            rows += piece.num_rows
    return rows


def _large(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield pieces put together until they are worth a row group."""
    gathered: list[pa.Table] = []
    for piece in pieces:
        gathered.append(piece)
        if sum(part.num_rows for part in gathered) >= ROWS_OF_GROUP:
            yield pa.concat_tables(gathered)
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def about(path: Path) -> dict[str, object]:
    """Return what `write_table` was told about a file; empty where it was told nothing."""
    metadata = pq.read_schema(path).metadata or {}
    return dict(json.loads(metadata.get(METADATA_KEY, b"{}")))
