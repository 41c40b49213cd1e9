"""RecBole's files and saved data sets: the same data as plain tables give the same domain."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_files import EVENTS, ITEMS, picture, write_shop

from utgrec.catalog import Domain
from utgrec.data.options import TableOptions, merge_options
from utgrec.data.prepare import prepare_table
from utgrec.data.recbole import prepare_recbole
from utgrec.errors import BadTable, MissingDependency

OPEN = TableOptions(name="tea", k_core=1)
INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n"
FILMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "242\tKolya\t1996\tComedy\n302\tL.A. Confidential\t1997\tCrime Film-Noir\n"
)


def tables_of(folder: Path) -> list[dict[str, Any]]:
    names = ("items", "users", "interactions")
    return [pq.read_table(folder / f"{name}.parquet").to_pydict() for name in names]


def films(folder: Path) -> Path:
    folder.mkdir()
    (folder / "ml.inter").write_text(INTER + "196\t302\t5\t881250950\n22\t302\t4\t881250951\n")
    (folder / "ml.item").write_text(FILMS)
    (folder / "ml.user").write_text("user_id:token\tage:token\n196\t49\n")
    return folder


# ------------------------------------------------------------------------------------- recbole


def test_recbole_by_hand(tmp_path: Path) -> None:
    prepare_recbole(films(tmp_path / "ml"), tmp_path / "out", TableOptions(k_core=1))
    domain = Domain.open(tmp_path / "out")
    assert domain.name == "ml"
    assert domain.catalog.titles == ["Kolya", "L.A. Confidential"]
    assert domain.catalog.texts == ["Kolya. Comedy.", "L.A. Confidential. Crime, Film-Noir."]
    assert domain.catalog[1].attributes == {"release_year": 1997, "class": ["Crime", "Film-Noir"]}
    assert domain.user_ids == ["196", "22"]
    assert domain.timestamps.tolist() == [881250949000, 881250950000, 881250951000]


def test_recbole_equals_plain_tables(tmp_path: Path) -> None:
    def seq(values: list[str] | None) -> str:
        return " ".join(value.replace(" ", "\u00a0") for value in values or ())

    plain = [{**item, "title": item["title"] or ""} for item in ITEMS]
    write_shop(tmp_path / "plain", plain)
    names = list(dict.fromkeys(name for item in ITEMS for name in item))
    kinds = {"categories": "token_seq", "makers": "token_seq", "title": "token_seq"}
    lines = ["\t".join(f"{name}:{kinds.get(name, 'token')}" for name in names)]
    for item in ITEMS:
        cells = [item.get(name) for name in names]
        shown = ["" if c is None else seq(c) if isinstance(c, list) else str(c) for c in cells]
        lines.append("\t".join('"' + cell.replace('"', '""') + '"' for cell in shown))
    (tmp_path / "tea").mkdir()
    (tmp_path / "tea" / "tea.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = ["user_id:token\titem_id:token\ttimestamp:float"]
    log += ["\t".join(map(str, event)) for event in EVENTS]
    (tmp_path / "tea" / "tea.inter").write_text("\n".join(log) + "\n", encoding="utf-8")
    prepare_table(tmp_path / "plain", tmp_path / "one", OPEN)
    prepare_recbole(tmp_path / "tea", tmp_path / "other", OPEN)
    assert tables_of(tmp_path / "one") == tables_of(tmp_path / "other")


def test_recbole_without_items_and_in_parts(tmp_path: Path) -> None:
    source = tmp_path / "ml"
    source.mkdir()
    (source / "ml.train.inter").write_text(INTER)
    (source / "ml.test.inter").write_text(INTER.replace("242", "302"))
    with pytest.raises(BadTable, match=r"more than one \.inter.*--interactions"):
        prepare_recbole(source, tmp_path / "out", OPEN)
    both = merge_options({}, {"name": "ml", "k_core": 1, "interactions_file": "ml.*.inter"})
    facts = prepare_recbole(source, tmp_path / "out", both).facts
    assert facts["counts"]["interactions"] == facts["counts"]["items"] == 2
    assert facts["counts"]["items_with_text"] == 0


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("ml.item", "item_id\ttitle\n1\tx\n", "the field 'item_id' has no type"),
        ("ml.item", "item_id:int\n", "no type"),
        ("ml.item", "title:token\n1\n", "no column for item_id"),
        ("ml.inter", "user_id:token\titem_id:token\nu\t242\n", "no column for timestamp"),
        ("ml.inter", INTER + "1\t2\n", "broken row"),
        ("ml.inter", INTER + "1\t999\t1\t881250949\n", "unknown item"),
    ],
)
def test_broken_atomic_files(tmp_path: Path, file: str, text: str, message: str) -> None:
    source = films(tmp_path / "ml")
    (source / file).write_text(text)
    with pytest.raises(BadTable, match=message):
        prepare_recbole(source, tmp_path / "out", OPEN)
    with pytest.raises(BadTable, match=r"no \.inter file"):
        prepare_recbole(tmp_path, tmp_path / "out", OPEN)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------ datasets


def saved(folder: Path, pictures: bool = False) -> Path:
    """The small shop as `datasets` saves it."""
    datasets = pytest.importorskip("datasets")
    items = datasets.Dataset.from_list([{**item, "kind": 1} for item in ITEMS])
    items = items.cast_column("kind", datasets.ClassLabel(names=["food", "drink"]))
    if pictures:
        content = {"bytes": picture(), "path": "a.png"}
        items = items.add_column("image", [content, None, content])
        items = items.cast_column("image", datasets.Image())
    log = datasets.Dataset.from_dict(
        {
            "user_id": [event[0] for event in EVENTS],
            "item_id": [event[1] for event in EVENTS],
            "timestamp": [event[2] for event in EVENTS],
        }
    )
    # A selection that is kept as indices must be read as what it selects.
    log = log.select([*range(len(log)), 0]).select(range(len(log)))
    datasets.DatasetDict({"items": items, "interactions": log}).save_to_disk(str(folder))
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_saved_data_sets_equal_plain_tables(tmp_path: Path) -> None:
    from utgrec.data.hf_datasets import prepare_datasets

    write_shop(tmp_path / "plain", [{**item, "kind": "drink"} for item in ITEMS])
    prepare_table(tmp_path / "plain", tmp_path / "one", OPEN)
    source = saved(tmp_path / "saved")
    manifest = prepare_datasets(source, tmp_path / "two", OPEN)
    assert tables_of(tmp_path / "one") == tables_of(tmp_path / "two")
    assert "items/data-00000-of-00001.arrow" in manifest.inputs
    assert prepare_datasets(source, tmp_path / "two", OPEN) == manifest
    # Two folders instead of two splits, under other names.
    (source / "dataset_dict.json").unlink()
    (source / "items").rename(source / "things")
    with pytest.raises(BadTable, match="--items NAME"):
        prepare_datasets(source, tmp_path / "three", OPEN)
    told = merge_options({}, {"name": "tea", "k_core": 1, "items_file": "things"})
    prepare_datasets(source, tmp_path / "three", told)
    assert tables_of(tmp_path / "one") == tables_of(tmp_path / "three")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pictures_and_broken_saved_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utgrec.data import hf_datasets

    source = saved(tmp_path / "saved", pictures=True)
    hf_datasets.prepare_datasets(source, tmp_path / "out", OPEN)
    images = Domain.open(tmp_path / "out").catalog.images
    assert [image is not None for image in images] == [True, False, True]
    assert images[0] == images[2] and images[0] is not None
    assert images[0].read_bytes() == picture()
    assert not list(tmp_path.glob(".pictures-*"))
    told = merge_options({}, {"name": "tea", "interactions_file": "log"})
    with pytest.raises(BadTable, match="no split 'log'; it has items, interactions"):
        hf_datasets.prepare_datasets(source, tmp_path / "x", told)
    arrow = next((source / "items").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(BadTable, match=r"cannot be .*; save the data set again"):
        hf_datasets.prepare_datasets(source, tmp_path / "x", OPEN)
    with pytest.raises(BadTable, match="no folder that save_to_disk wrote"):
        hf_datasets.prepare_datasets(tmp_path / "none", tmp_path / "x", OPEN)

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(hf_datasets.importlib, "import_module", missing)
    with pytest.raises(MissingDependency, match=r"utgrec\[datasets\]"):
        hf_datasets.prepare_datasets(source, tmp_path / "x", OPEN)
    assert not (tmp_path / "x").exists() and not list(tmp_path.glob(".pictures-*"))


def test_schemas_stay_what_readers_know(tmp_path: Path) -> None:
    prepare_recbole(films(tmp_path / "ml"), tmp_path / "out", TableOptions(k_core=1))
    schema = pq.read_schema(tmp_path / "out" / "interactions.parquet")
    assert schema.names == ["user", "item", "timestamp"]
    assert schema.types == [pa.int32(), pa.int32(), pa.int64()]
