"""A domain comes back from its folder as it was written."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from utgrec import storage
from utgrec.catalog import Catalog, Domain, write_domain
from utgrec.errors import CorruptFile, MissingStage, UnknownItem


def items_table():
    """Four items: full, without picture, without words, with a strange id."""
    return pa.table(
        {
            "item_id": ["A", "B", "C", "../d "],
            "title": ["Cup", "Pot", None, "Pan"],
            "text": ["A red cup.", "A pot.", None, ""],
            "image": pa.array(["images/a.png", None, "images/c.png", ""], pa.string()),
            "category": [["kitchen", "cups"], [], None, ["kitchen"]],
            "price": [1.5, None, 3.0, 4.0],
        }
    )


HISTORIES = [[0, 1, 2, 3], [], [3, 3], [2]]


def write(folder, histories=HISTORIES, **changes):
    """Write the little domain; returns its manifest."""
    lengths = [len(history) for history in histories]
    interactions = pa.table(
        {
            "user": pa.array(np.repeat(np.arange(len(histories)), lengths), pa.int32()),
            "item": pa.array([item for history in histories for item in history], pa.int32()),
            "timestamp": pa.array(range(100, 100 + sum(lengths)), pa.int64()),
        }
    )
    values = {
        "name": "shop",
        "items": items_table(),
        "user_ids": [f"u{number}" for number in range(len(histories))],
        "interactions": interactions,
        "config": {},
        "inputs": {},
        "facts": {"licence": "free"},
        **changes,
    }
    with storage.new_folder(folder) as partial:
        return write_domain(partial, **values)


@pytest.fixture
def folder(tmp_path):
    """The little domain's folder."""
    write(tmp_path / "shop")
    return tmp_path / "shop"


class TestDomain:
    def test_it_comes_back(self, folder):
        domain = Domain.open(str(folder))
        assert domain.name == "shop"
        assert domain.user_ids == ["u0", "u1", "u2", "u3"]
        assert [domain.history(user).tolist() for user in range(4)] == HISTORIES
        assert domain.timestamps.tolist() == list(range(100, 107))
        assert domain.catalog.table.equals(items_table())
        assert (domain.user_count, domain.interaction_count, len(domain.catalog)) == (4, 7, 4)

    def test_the_last_users_without_interactions_are_kept(self, tmp_path):
        write(tmp_path / "shop", histories=[[0], [], []])
        domain = Domain.open(tmp_path / "shop")
        assert domain.offsets.tolist() == [0, 1, 1, 1]
        assert domain.history(2).tolist() == []

    def test_counts_are_facts(self, folder):
        facts = storage.read_manifest(folder, "domain", "domain.json").facts
        assert facts["licence"] == "free"
        assert facts["counts"] == {
            "users": 4,
            "items": 4,
            "interactions": 7,
            "items_with_text": 2,
            "items_with_image": 3,
        }

    def test_rejected_rows_are_written_only_if_there_are_any(self, tmp_path):
        rows = pa.table({"line": [3], "reason": ["no id"]})
        assert "rejected.parquet" in write(tmp_path / "a", rejected=rows).files
        assert "rejected.parquet" not in write(tmp_path / "b", rejected=rows.slice(1)).files

    def test_the_fingerprint_is_that_of_the_content(self, tmp_path, folder):
        same = write(tmp_path / "same", config={"other": 1})
        other = write(tmp_path / "other", histories=[[1, 0, 2, 3], *HISTORIES[1:]])
        assert Domain.open(folder).fingerprint == same.fingerprint
        assert Domain.open(folder).fingerprint != other.fingerprint

    def test_a_domain_from_memory_has_no_fingerprint(self):
        domain = Domain(
            name="x",
            catalog=Catalog(items_table()),
            user_ids=["u"],
            offsets=np.array([0, 1]),
            items=np.array([0], np.int32),
            timestamps=np.array([0]),
        )
        with pytest.raises(ValueError, match="not read from a folder"):
            _ = domain.fingerprint

    @pytest.mark.parametrize("name", ["items", "users", "interactions"])
    def test_a_changed_table_is_refused(self, folder, name):
        path = folder / f"{name}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.slice(0, table.num_rows - 1), path)
        with pytest.raises(CorruptFile, match=f"{name}.parquet is not the file"):
            Domain.open(folder)

    def test_an_unfinished_folder_is_refused(self, folder):
        (folder / "domain.json").unlink()
        with pytest.raises(MissingStage, match="holds no finished domain"):
            Domain.open(folder)


class TestCatalog:
    def test_an_item_is_its_row(self, folder):
        catalog = Domain.open(folder).catalog
        cup, pot, nameless, pan = catalog
        assert cup.item_id == "A"
        assert cup.title == "Cup"
        assert cup.text == "A red cup."
        assert cup.attributes == {"category": ["kitchen", "cups"], "price": 1.5}
        assert cup.image == folder / "images/a.png"
        assert pot.image is None
        assert pan.image is None  # an empty path is no picture
        assert (nameless.title, nameless.text) == ("", "")

    def test_columns_and_items_agree(self, folder):
        catalog = Domain.open(folder).catalog
        assert catalog.titles == [item.title for item in catalog]
        assert catalog.texts == [item.text for item in catalog]
        assert catalog.images == [item.image for item in catalog]
        assert catalog.item_ids == [item.item_id for item in catalog]

    def test_indices_are_the_inverse_of_ids(self, folder):
        catalog = Domain.open(folder).catalog
        assert catalog.indices_of(catalog.item_ids) == [0, 1, 2, 3]
        assert [catalog.index_of(item) for item in catalog.item_ids] == [0, 1, 2, 3]
        assert "A" in catalog
        assert "a" not in catalog
        assert catalog.indices_of([]) == []

    def test_unknown_ids_are_named(self):
        catalog = Catalog(items_table())
        with pytest.raises(UnknownItem, match=r"'a' is not in this catalogue of 4 items"):
            catalog.index_of("a")
        with pytest.raises(UnknownItem, match=r"'1', '2', '3', '4', '5' and 2 more"):
            catalog.indices_of(["A", *"1234567"])

    def test_without_a_folder_pictures_stay_relative(self):
        assert Catalog(items_table()).images[0] == Path("images/a.png")

    def test_a_table_without_a_column_is_refused(self):
        with pytest.raises(CorruptFile, match="lacks title, image"):
            Catalog(items_table().drop_columns(["title", "image"]))
