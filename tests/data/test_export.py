"""prepare → export → prepare gives the same domain, whatever the shop and the format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from random_shops import assert_same_domain, options_of, prepare_shop, shops
from shop_files import picture, write_shop

from utgrec import storage
from utgrec.catalog import Domain, write_domain
from utgrec.data.authors import prepare_authors
from utgrec.data.export import export_domain
from utgrec.data.options import TableOptions
from utgrec.data.prepare import prepare_table
from utgrec.data.recbole import prepare_recbole
from utgrec.errors import BadConfig, EmptyDomain, InputError, SettingsMismatch

FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
Factory = pytest.TempPathFactory


@FEW
@given(shops())
def test_every_table_format_gives_the_domain_back(
    tmp_path_factory: Factory, shop: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    try:
        domain = prepare_shop(folder, shop)
    except EmptyDomain:
        assume(False)
    for form, prepare in (
        ("csv", prepare_table),
        ("parquet", prepare_table),
        ("recbole", prepare_recbole),
    ):
        export = folder / form
        export_domain(domain, export, form)  # type: ignore[arg-type]
        prepare(export, folder / f"again-{form}", options_of(export))
        assert_same_domain(domain, folder / f"again-{form}")


@FEW
@given(shops())
def test_the_authors_folder_keeps_what_it_can_hold(
    tmp_path_factory: Factory, shop: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    try:
        domain = prepare_shop(folder, {**shop, "pictures": False})
    except EmptyDomain:
        assume(False)
    export_domain(domain, folder / "out", "authors")
    prepare_authors(folder / "out", folder / "again", options_of(folder / "out"))
    first, second = Domain.open(domain), Domain.open(folder / "again")
    assert (first.catalog.item_ids, first.catalog.texts) == (
        second.catalog.item_ids,
        second.catalog.texts,
    )
    assert first.user_ids == second.user_ids
    np.testing.assert_array_equal(first.offsets, second.offsets)
    np.testing.assert_array_equal(first.items, second.items)
    assert second.manifest is not None and second.manifest.facts["time"]["real"] is False
    # What the format holds, it holds for good.
    export_domain(folder / "again", folder / "out-2", "authors")
    prepare_authors(folder / "out-2", folder / "again-2", options_of(folder / "out-2"))
    assert_same_domain(folder / "again", folder / "again-2")


def test_a_folder_as_the_authors_write_it(tmp_path: Path) -> None:
    source = tmp_path / "Instrument"
    (source / "Images").mkdir(parents=True)
    (source / "Images" / "B2.jpg").write_bytes(picture(kind="JPEG"))
    for name, value in {
        "all_item_seqs.json": {"U2": ["B1", "B2", "B1"], "U1": ["B2"]},
        "id_mapping.json": {
            "user2id": {"[PAD]": 0, "U2": 1, "U1": 2},
            "item2id": {"[PAD]": 0, "B2": 1, "B1": 2},
            "id2user": ["[PAD]", "U2", "U1"],
            "id2item": ["[PAD]", "B2", "B1"],
        },
        "metadata.sentence.json": {"B1": "A <b>drum</b>. ", "B2": ["A horn.", "Loud."]},
    }.items():
        (source / name).write_text(json.dumps(value))
    prepare_authors(source, tmp_path / "domain", TableOptions(k_core=1))
    domain = Domain.open(tmp_path / "domain")
    assert domain.name == "Instrument"
    assert domain.catalog.item_ids == ["B2", "B1"]
    assert domain.catalog.texts == ["A horn. Loud.", "A drum."]
    assert [image is not None for image in domain.catalog.images] == [True, False]
    assert domain.user_ids == ["U1", "U2"]
    assert [domain.history(user).tolist() for user in range(2)] == [[0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("all_item_seqs.json", b"[1]", "a JSON list, it must be an object"),
        ("all_item_seqs.json", b'{"u": "B1"}', "history of user 'u' has \"B1\", it must be a list"),
        (
            "all_item_seqs.json",
            b'{"u": ["B1", 2.5]}',
            r"user 'u' has 2\.5 in it, it must be a list",
        ),
        ("all_item_seqs.json", b'{"u": ["B1", true]}', "user 'u' has true in it"),
        ("all_item_seqs.json", b'{"\\ud800": ["B1"]}', "half of a UTF-16 pair.*correct the text"),
        ("all_item_seqs.json", b'{"u": ["B1", "\\udfff"]}', "half of a UTF-16 pair"),
        ("all_item_seqs.json", b'{"u": ["B1"], "u": []}', "names 'u' twice"),
        ("all_item_seqs.json", b'{"u": ["B1"', "not valid JSON"),
        ("all_item_seqs.json", b'{"u": ["B9"]}', "unknown item"),
        ("id_mapping.json", b'{"id2item": ["B1"]}', "must be the padding"),
        ("id_mapping.json", b'{"id2item": {"x": "B1"}}', "is no number"),
        ("id_mapping.json", b"{}", "id2item has null, it must be a list"),
        ("id_mapping.json", b'{"id2item": ["[PAD]", "B1", "B1"]}', "duplicate item id"),
        ("id_mapping.json", b'{"id2item": ["[PAD]", "B1", "\\udc00"]}', "half of a UTF-16 pair"),
        ("metadata.sentence.json", b'{"B1": 7}', "of item 'B1' is 7, it must be a text"),
        ("metadata.sentence.json", b'{"B1": ["x", "\\uD83d"]}', "half of a UTF-16 pair"),
        ("metadata.sentence.json", b"\xff", "not valid JSON in UTF-8"),
    ],
)
def test_broken_authors_folders(tmp_path: Path, name: str, value: bytes, message: str) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "all_item_seqs.json").write_text('{"u": ["B1"]}')
    (source / "id_mapping.json").write_text('{"id2item": ["[PAD]", "B1"]}')
    (source / "metadata.sentence.json").write_text('{"B1": "x"}')
    (source / name).write_bytes(value)
    with pytest.raises(InputError, match=message):
        prepare_authors(source, tmp_path / "out", TableOptions(k_core=1))
    assert not (tmp_path / "out").exists()


def test_exports_are_whole_and_never_mixed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        options = TableOptions(name=name, k_core=1)
        prepare_table(write_shop(tmp_path / name), tmp_path / f"{name}-domain", options)
    first = export_domain(tmp_path / "a-domain", tmp_path / "out", "csv")
    assert export_domain(tmp_path / "a-domain", tmp_path / "out", "csv") == first
    assert set(first.files) == {"items.csv", "interactions.csv", "utgrec.toml"}
    with pytest.raises(SettingsMismatch):
        export_domain(tmp_path / "b-domain", tmp_path / "out", "csv")
    with pytest.raises(SettingsMismatch):
        export_domain(tmp_path / "a-domain", tmp_path / "out", "recbole")
    with pytest.raises(BadConfig, match="format 'xml' is unknown"):
        export_domain(tmp_path / "a-domain", tmp_path / "other", "xml")  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


def _domain_with(folder: Path, column: pa.Array, name: str = "note") -> Path:
    items = pa.table({"item_id": ["a"], "title": ["t"], "text": ["t."], "image": pa.nulls(1)})
    items = items.append_column(name, column)
    log = pa.table(
        {"user": pa.array([0], pa.int32()), "item": pa.array([0], pa.int32()), "timestamp": [1]}
    )
    with storage.new_folder(folder) as work:
        write_domain(
            work,
            name="d",
            items=items,
            user_ids=["u"],
            interactions=log,
            config={},
            inputs={},
            facts={},
        )
    return folder


@pytest.mark.parametrize(
    ("column", "name", "form", "message"),
    [
        (pa.array(["x" * 200_000]), "note", "csv", "200,000 characters.*export as parquet"),
        (pa.array(["x"]), "two\nlines", "csv", "cannot stand in a header line"),
        (pa.array([["a\u00a0b"]]), "note", "recbole", "cannot stand in a token_seq"),
        (pa.array([{"a": 1}]), "note", "parquet", "'note' has the type struct"),
    ],
)
def test_what_a_format_cannot_hold_is_named(
    tmp_path: Path, column: pa.Array, name: str, form: Any, message: str
) -> None:
    domain = _domain_with(tmp_path / "d", column, name)
    with pytest.raises(InputError, match=message):
        export_domain(domain, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_a_changed_export_is_found(tmp_path: Path) -> None:
    prepare_table(write_shop(tmp_path / "s"), tmp_path / "domain", TableOptions(k_core=1))
    export_domain(tmp_path / "domain", tmp_path / "out", "csv")
    table = (tmp_path / "out" / "items.csv").read_text()
    assert "1999" in table
    (tmp_path / "out" / "items.csv").write_text(table.replace("1999", "last year"))
    with pytest.raises(InputError, match="'last year' in year is no int"):
        prepare_table(tmp_path / "out", tmp_path / "again", options_of(tmp_path / "out"))
    # A title that is changed comes back changed: the law above compares what is in the files.
    (tmp_path / "out" / "items.csv").write_text(table.replace("Cup", "Mug"))
    prepare_table(tmp_path / "out", tmp_path / "again", options_of(tmp_path / "out"))
    titles = pq.read_table(tmp_path / "again" / "items.parquet").column("title").to_pylist()
    assert "Mug" in titles and "Cup" not in titles
