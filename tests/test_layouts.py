"""The public layouts: small twins of each, made here, and the real ones where they are."""

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from test_events import one_line, rows

from recae.errors import EventsError
from recae.events import Columns, read_events, read_given_split

RealData = Callable[[str], Path]


def lay_out(folder: Path, files: Mapping[str, str], encoding: str = "utf-8") -> list[Path]:
    """Write files into a folder and into a zip, with a folder of its own; return both."""
    inside = folder / "set"
    inside.mkdir()
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for name, text in files.items():
            (inside / name).write_bytes(text.encode(encoding))
            archive.writestr(f"set/{name}", text.encode(encoding))
        archive.writestr("__MACOSX/set/._ratings.dat", b"\0")
    return [inside, folder / "set.zip"]


DAT = {
    "ratings.dat": "1::10::5::978300760\n2::11::3.5::978302109\n",
    "movies.dat": "10::Amélie (2001)::Comedy|Romance\n11::No Year::(no genres listed)\n12::A: B (1999)::Drama\n",
    "users.dat": "1::F::1::10::48067\n",
}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_movielens_dat(tmp_path: Path, encoding: str) -> None:
    sources = lay_out(tmp_path, DAT, encoding)
    for source in [*sources, tmp_path / "set" / "ratings.dat"]:
        events = read_events(source)
        assert rows(events) == [(1, 10, 5.0, 978300760), (2, 11, 3.5, 978302109)]
        assert events.items is not None
        assert events.items["item_id"].to_list() == [10, 11, 12]
        assert events.items["title"].to_list() == ["Amélie (2001)", "No Year", "A: B (1999)"]
        assert events.items["genres"].fillna("?").to_list() == ["Comedy|Romance", "?", "Drama"]
        assert events.items["year"].to_list() == [2001, pd.NA, 1999]


def test_movielens_100k(tmp_path: Path) -> None:
    flags = ["|".join("1" if n in on else "0" for n in range(3)) for on in ({1, 2}, {0})]
    files = {
        "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        "u.item": f"242|Kolya (1996)|24-Jan-1997||http://x|{flags[0]}\n302|unknown||||{flags[1]}\n",
        "u.genre": "unknown|0\nAction|1\nFilm-Noir|2\n\n",
    }
    for source in lay_out(tmp_path, files, "latin-1"):
        events = read_events(source)
        assert rows(events) == [(196, 242, 3.0, 881250949), (186, 302, 3.0, 891717742)]
        assert events.items is not None
        assert events.items["genres"].to_list() == ["Action|Film-Noir", "unknown"]
        assert events.items["year"].to_list() == [1996, pd.NA]


def test_movielens_csv(tmp_path: Path) -> None:
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n",
        "movies.csv": 'movieId,title,genres\n31,"American President, The (1995) ",Drama\n32,Series (2006–2007),Crime\n',
        "tags.csv": "userId,movieId,tag,timestamp\n",
    }
    for source in lay_out(tmp_path, files):
        events = read_events(source)
        assert rows(events) == [(1, 31, 2.5, 1260759144)]
        assert events.items is not None and events.items["year"].to_list() == [1995, 2006]
    # By itself the file is any CSV, and its columns can be named.
    assert rows(read_events(tmp_path / "set" / "ratings.csv", columns=Columns(value="", time=""))) == [(1, 31)]


def test_lightgcn(tmp_path: Path) -> None:
    files = {"train.txt": "0 5 7 \r\n1 5\r\n2\r\n", "test.txt": "0 9\n\n1 7 8"}
    for source in lay_out(tmp_path, files):
        assert rows(read_events(source)) == [(0, 5), (0, 7), (1, 5), (0, 9), (1, 7), (1, 8)]
        sides = read_given_split(source)
        assert {side: rows(events) for side, events in sides.items()} == {
            "train": [(0, 5), (0, 7), (1, 5)],
            "test": [(0, 9), (1, 7), (1, 8)],
        }
    assert rows(read_events(tmp_path / "set" / "test.txt")) == [(0, 9), (1, 7), (1, 8)]


def test_lightgcn_lastfm(tmp_path: Path) -> None:
    files = {"data1.txt": "1\t2\t30\r\n", "test1.txt": "1\t3\t40\r\n", "trustnetwork.txt": "1\t2\r\n"}
    for source in lay_out(tmp_path, files):
        assert {side: rows(events) for side, events in read_given_split(source).items()} == {
            "train": [(1, 2, 30.0)],
            "test": [(1, 3, 40.0)],
        }


STRONG = {
    "train.csv": "user,item\n1,1\n",
    "validation_tr.csv": "user,item\n2,1\n",
    "validation_te.csv": "user,item\n2,x\n",
    "test_tr.csv": "user,item\n3,1\n",
    "test_te.csv": "user,item\n3,2\n",
    "items.csv": "item\n1\n2\n",
}


def test_a_ready_strong_split_has_one_type_of_ids_on_all_sides(tmp_path: Path) -> None:
    for source in lay_out(tmp_path, STRONG):
        sides = read_given_split(source)
        assert {side: rows(events) for side, events in sides.items()} == {
            "train": [(1, "1")],
            "validation_history": [(2, "1")],
            "validation_held_out": [(2, "x")],
            "test_history": [(3, "1")],
            "test_held_out": [(3, "2")],
        }
        assert all(events.items is not None and list(events.items) == ["item_id"] for events in sides.values())
        assert len(rows(read_events(source))) == 5


NETFLIX = {f"combined_data_{n}.txt": f"{n}:\n11,3,2005-09-06\n12,5,2005-05-13\n" for n in range(1, 4)}
NETFLIX["combined_data_4.txt"] = "4:\n11,4,2004-01-02\n17770:\n13,1,2004-01-01\n"
NETFLIX["movie_titles.csv"] = "1,2003,Dinosaur Planet\n2,2004,Isle, of Man\n4,NULL,Été\n"


def test_netflix(tmp_path: Path) -> None:
    day = 86_400_000_000
    for source in lay_out(tmp_path, NETFLIX, "latin-1"):
        events = read_events(source)
        found = rows(events)
        assert [row[:3] for row in found[:3]] == [(11, 1, 3.0), (12, 1, 5.0), (11, 2, 3.0)]
        assert [row[:3] for row in found[-2:]] == [(11, 4, 4.0), (13, 17770, 1.0)]
        assert found[-2][3] - found[-1][3] == day
        assert events.items is not None
        assert events.items["title"].to_list() == ["Dinosaur Planet", "Isle, of Man", "Été"]
        assert events.items["year"].to_list() == [2003, 2004, pd.NA]


@pytest.mark.parametrize(
    ("third", "said"),
    [
        ("3:\n11,3,2005-09-06\n5:\n11,x,2005-09-06\n", "first in line 4: 'x' in column 'value' is no"),
        ("3:\n11,3,2005-09-06\n5:\n11,3\n", "line 4 has not three fields"),
        ("11,3,2005-09-06\n", "does not begin with a film's number and a colon"),
        ("3:\n11,3,2005-09-06\n\n5:\n12,3,2005-09-06\n", "empty lines"),
        ("3:\n11,3,2005-09-06\n4:\n5:\n12,3,2005-09-06\n", "no rating follows film 4; fetch"),
        ("3:\n11,3,2005-09-06\n4:", "line 3 has not three fields"),
    ],
)
def test_a_damaged_netflix_is_one_line(tmp_path: Path, third: str, said: str) -> None:
    for source in lay_out(tmp_path, {**NETFLIX, "combined_data_3.txt": third}, "latin-1"):
        with pytest.raises(EventsError, match=f"combined_data_3.txt.*{said}"):
            read_events(source)


def test_a_part_of_netflix_is_one_line(tmp_path: Path) -> None:
    part = {name: text for name, text in NETFLIX.items() if name not in ("combined_data_2.txt", "combined_data_3.txt")}
    for source in lay_out(tmp_path, {**part, "movie_titles.csv": "1,2003,Dinosaur Planet\n"}, "latin-1"):
        with pytest.raises(EventsError, match=r"without the rest of it \(combined_data_2\.txt, combined_data_3\.txt\)"):
            read_events(source)


def test_netflix_without_titles_is_one_line(tmp_path: Path) -> None:
    for source in lay_out(tmp_path, {**NETFLIX, "movie_titles.csv": "\n"}, "latin-1"):
        with pytest.raises(EventsError, match=r"movie_titles\.csv.*no line 'film,year,title' in it"):
            read_events(source)


def test_the_taste_profile(tmp_path: Path) -> None:
    for source in lay_out(tmp_path, {"train_triplets.txt": "b80\tSOAK\t1\nb80\tSOAP\t2\nc\tSOAP\t7\n"}):
        assert [row[:3] for row in rows(read_events(source))] == [
            ("b80", "SOAK", 1),
            ("b80", "SOAP", 2),
            ("c", "SOAP", 7),
        ]


def test_jester(tmp_path: Path) -> None:
    files = {"jester-data-1.csv": "2,-7.82,99,8.79\n1,99,1,99.00\n"}
    for source in lay_out(tmp_path, files):
        assert rows(read_events(source)) == [(1, 1, -7.82), (1, 3, 8.79), (2, 2, 1.0)]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"jester-data-1.csv": "2,1,2\n2,99,1\n"}, "line 2 does not hold"),
        ({"jester-data-1.csv": "2,1,2\n2,x,1\n"}, "first in line 2: 'x' in column 'value' is no"),
        ({"jester-data-1.csv": "2,1,2\n1,1\n"}, "first in line 2: too many or too few"),
        ({"u.data": "1\t2\t3\t4\n1\t2\t3\n"}, "first in line 2: too many or too few"),
        ({"u.data": "1\t2\t3\t4\n1\t2\tthree\t4\n"}, "first in line 2: 'three' in column 'value' is no"),
        ({"ratings.dat": "1::2::3::4\n\n1::::3::4\n"}, "first in line 3: an empty item id"),
        ({"ratings.dat": "1::2::3::4\n", "movies.dat": "1::only\n"}, "movies.dat"),
        ({"ratings.dat": "1::2::3::4\n", "movies.dat": "1::a::b\n1::a::b\n"}, "more than once"),
        ({"ratings.csv": ""}, "empty"),
        ({"train.txt": "0\n", "test.txt": "0 1\n"}, "no events"),
        ({**STRONG, "test_te.csv": "user,item\n"}, "no events"),
        ({**STRONG, "test_te.csv": "user,item,time\n1,1,1\n"}, "different columns"),
    ],
)
def test_damaged_layouts(tmp_path: Path, files: Mapping[str, str], words: str) -> None:
    for source in lay_out(tmp_path, files):
        assert words in one_line(partial(read_events, source))


def test_layouts_without_column_names_take_none(tmp_path: Path) -> None:
    source, _ = lay_out(tmp_path, DAT)
    assert "leave the column options out" in one_line(lambda: read_events(source, columns=Columns(user="user")))


def test_a_log_that_is_not_split(tmp_path: Path) -> None:
    source, _ = lay_out(tmp_path, DAT)
    assert "does not come split" in one_line(lambda: read_given_split(source))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "events", "users", "items", "columns"),
    [
        ("ml-1m.zip", 1_000_209, 6_040, 3_706, 4),
        ("ml-100k.zip", 100_000, 943, 1_682, 4),
        ("ml-latest-small.zip", 100_836, 610, 9_724, 4),
        ("gowalla.zip", 810_128 + 217_242, 29_858, 40_981, 2),
        ("yelp2018.zip", 1_237_259 + 324_147, 31_668, 38_048, 2),
        ("lastfm.zip", 52_668, 1_880, 4_489, 3),
        ("jester-1.zip", 1_810_455, 24_983, 100, 3),
        ("ml-1m-strong.zip", 575_228, 6_034, 3_497, 2),
    ],
)
def test_the_real_ones(real_data: RealData, name: str, events: int, users: int, items: int, columns: int) -> None:
    log = read_events(real_data(name))
    assert log.counts == {"rows": events}
    assert log.table.num_rows == events and log.table.num_columns == columns
    assert (log.table["user_id"].unique().__len__(), log.table["item_id"].unique().__len__()) == (users, items)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("gowalla.zip", [810_128, 217_242]),
        ("yelp2018.zip", [1_237_259, 324_147]),
        ("lastfm.zip", [42_135, 10_533]),
        ("ml-1m-strong.zip", [462_827, 46_146, 11_228, 44_266, 10_761]),
    ],
)
def test_the_real_splits(real_data: RealData, name: str, sides: list[int]) -> None:
    assert [events.table.num_rows for events in read_given_split(real_data(name)).values()] == sides


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "items", "title", "genres", "year"),
    [
        ("ml-1m.zip", 3_883, "Toy Story (1995)", "Animation|Children's|Comedy", 1995),
        ("ml-100k.zip", 1_682, "Toy Story (1995)", "Animation|Children's|Comedy", 1995),
        ("ml-latest-small.zip", 9_742, "Toy Story (1995)", "Adventure|Animation|Children|Comedy|Fantasy", 1995),
    ],
)
def test_the_real_films(real_data: RealData, name: str, items: int, title: str, genres: str, year: int) -> None:
    films = read_events(real_data(name)).items
    assert films is not None and len(films) == items
    assert films.iloc[0].to_list() == [1, title, genres, year]
    # The nineteen without a year are serials and the like; no accent was lost on the way.
    assert films["year"].isna().sum() < 20
    assert films["title"].str.contains("é").sum() > 5


@pytest.mark.real_data
def test_a_real_zip_cut_short(real_data: RealData, tmp_path: Path) -> None:
    path = tmp_path / "ml-100k.zip"
    path.write_bytes(real_data("ml-100k.zip").read_bytes()[:500_000])
    with pytest.raises(EventsError, match="not a zip, or one cut short"):
        read_events(path)
