"""The tables that recae gives to others: their columns, types and order; whole files or none."""

import errno

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recae.tables
from recae.errors import OutputError
from recae.files import require_table_place
from recae.ids import IdMap
from recae.ranking import NO_ITEM, TopN
from recae.tables import about, embeddings, recommendations, write_table

TOP = TopN(
    np.array([[2, 0, 1], [1, NO_ITEM, NO_ITEM], [NO_ITEM, NO_ITEM, NO_ITEM], [0, 2, NO_ITEM]], np.int32),
    np.array([[3, 2, 1], [5, -np.inf, -np.inf], [-np.inf] * 3, [0.5, -0.5, -np.inf]], np.float32),
)
USERS = IdMap.of(["ann", "bob", "cy", "dé"])
ITEMS = IdMap.of([7, 70, 2**63 - 1])


def test_recommendations_are_by_user_then_rank_without_padding():
    table = recommendations(TOP, USERS, ITEMS)
    assert table.schema.names == ["user_id", "item_id", "rank", "score"]
    assert [table.schema.field(name).type for name in ("item_id", "rank", "score")] == [
        pa.int64(),
        pa.int32(),
        pa.float32(),
    ]
    assert table.to_pydict() == {
        "user_id": ["ann", "ann", "ann", "bob", "dé", "dé"],
        "item_id": [2**63 - 1, 7, 70, 70, 7, 2**63 - 1],
        "rank": [1, 2, 3, 1, 1, 2],
        "score": [3, 2, 1, 5, 0.5, -0.5],
    }


def test_recommendations_carry_titles_where_there_are_titles():
    titles = pd.DataFrame({"title": ["Seven", None, "Ünï"], "year": [1, 2, 3]})
    assert recommendations(TOP, USERS, ITEMS, titles)["title"].to_pylist() == [
        "Ünï",
        "Seven",
        None,
        None,
        "Seven",
        "Ünï",
    ]
    assert "title" not in recommendations(TOP, USERS, ITEMS, titles[["year"]]).schema.names


def test_embeddings_are_fixed_size_lists_of_float32():
    vectors = np.arange(8.0).reshape(4, 2)
    table = embeddings(vectors, USERS, "user_id")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert table["user_id"].to_pylist() == ["ann", "bob", "cy", "dé"]
    assert table["embedding"].to_pylist() == vectors.tolist()


def test_a_file_says_what_it_was_told(tmp_path):
    write_table(tmp_path / "a.parquet", recommendations(TOP, USERS, ITEMS), about={"model": "ease", "n": 3})
    assert about(tmp_path / "a.parquet") == {"model": "ease", "n": 3}
    write_table(tmp_path / "b.parquet", pd.DataFrame({"x": [1]}))
    assert about(tmp_path / "b.parquet") == {}
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 6


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    write_table(tmp_path / "a.parquet", pd.DataFrame({"x": [1]}))

    def full(table, draft, **_):
        draft.write_bytes(b"PAR1 and then")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recae.tables.pq, "write_table", full)
    with pytest.raises(OutputError, match=r"a\.parquet: no space left on the disk"):
        write_table(tmp_path / "a.parquet", pd.DataFrame({"x": [2]}), overwrite=True)
    assert pq.read_table(tmp_path / "a.parquet")["x"].to_pylist() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_place_for_a_table_is_refused_before_the_work(tmp_path):
    require_table_place(tmp_path / "new" / "a.parquet", overwrite=False)
    (tmp_path / "there.pq").touch()
    with pytest.raises(OutputError, match=r"there\.pq was not written by this command"):
        require_table_place(tmp_path / "there.pq", overwrite=True)
    write_table(tmp_path / "ours.pq", pd.DataFrame({"x": [1]}), about={"model": "ease"})
    require_table_place(tmp_path / "ours.pq", overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        require_table_place(tmp_path / "there.pq", overwrite=False)
    with pytest.raises(
        OutputError, match=r"a\.csv: tables are written as Parquet; give it a name that ends in .parquet"
    ):
        require_table_place(tmp_path / "a.csv", overwrite=False)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OutputError, match="is a directory; name a file in it"):
        require_table_place(tmp_path / "folder.parquet", overwrite=True)
