"""Items that join a live catalogue are read as preparation would have read them."""

import json
import shutil

import pytest
from small_shops import FakeCoder, jsonl, make_run, png

from mini_run import mini_domains
from utgrec.catalog import Domain
from utgrec.errors import BadImage, BadTable
from utgrec.serving.changes import CatalogEditor
from utgrec.serving.generations import GenerationStore
from utgrec.serving.item_files import keep_item_pictures, read_item_file
from utgrec.serving.items import ItemReader
from utgrec.serving.pictures import keep_files, keep_picture


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A prepared domain and the file of items it was prepared from."""
    folder = tmp_path_factory.mktemp("market")
    (domain,) = mini_domains(folder, ("kitchen",))
    return Domain.open(domain), folder / "sources" / "kitchen" / "items.jsonl"


def prepared(tmp_path, items, columns=None):
    """A domain prepared from these items, each taken twice by one user."""
    from utgrec.data.prepare import TableOptions, prepare_table

    source = tmp_path / "shop"
    jsonl(source / "items.jsonl", items)
    key = (columns or {}).get("item_id", "item_id")
    events = [f"u,{item[key]},{time}" for time, item in enumerate(items)]
    (source / "interactions.csv").write_text("user,item,timestamp\n" + "\n".join(events))
    prepare_table(source, tmp_path / "domain", TableOptions(k_core=1, columns=columns or {}))
    return Domain.open(tmp_path / "domain")


def assert_same_rows(domain, items):
    """Reading the source rows one by one gives the rows of the domain."""
    reader = ItemReader(domain.catalog.table.schema, domain.folder)
    rows = domain.catalog.table.to_pylist()
    assert len(rows) == len(items)
    for row, item in zip(rows, items, strict=True):
        found = reader.read([item])[0]
        assert {"item_id": found.item_id, **found.values} == {
            name: value
            for name, value in row.items()
            if name != "image" and (name == "title" or value is not None or name in found.values)
        }


def test_the_rows_are_those_of_the_prepared_domain(kitchen):
    domain, path = kitchen
    items = [json.loads(line) for line in path.read_text().splitlines()]
    assert_same_rows(domain, [{k: v for k, v in item.items() if k != "image"} for item in items])


def test_also_with_further_columns_and_names_of_the_shop(tmp_path):
    items = [
        {
            "sku": f"s{number}",
            "Product Name": f"<b>Film</b> {number} &amp; more",
            "genres": "Drama|War",
            "actors": ["Ann", "Bob", "Ann"],
            "year": "1990",
            "price": "1.299,00 €",
            "seen": True,
            "imdbId": f"tt{number}",
            "features": ["sharp", "long"],
        }
        for number in range(3)
    ]
    domain = prepared(tmp_path, items, {"item_id": "sku"})
    assert "Ann, Bob." in domain.catalog.texts[0]
    assert_same_rows(domain, items)


def test_also_where_the_shop_wrote_the_sentence_itself(tmp_path):
    items = [{"item_id": f"s{n}", "text": f"all of it {n}"} for n in range(3)]
    domain = prepared(tmp_path, items)
    assert domain.catalog.texts[1] == "all of it 1"
    assert_same_rows(domain, items)


class TestFiles:
    def test_pictures_are_found_by_name_and_by_id(self, tmp_path):
        png(tmp_path / "images" / "b.png", "blue")
        png(tmp_path / "pics" / "x.png")
        file = jsonl(
            tmp_path / "new.jsonl",
            [
                {"item_id": "a", "title": "A", "image": "pics/x.png"},
                {"item_id": "b", "title": "B"},
                {"item_id": "c", "title": "C", "image": None},
            ],
        )
        found = read_item_file(file)
        assert [item["item_id"] for item in found.items] == ["a", "b", "c"]
        assert all("image" not in item for item in found.items)
        assert found.pictures == {"a": "pics/x.png", "b": "images/b.png"}

    def test_they_are_kept_by_content_and_served_with_the_item(self, tmp_path):
        store = GenerationStore(make_run(tmp_path / "run", ["old"]))
        data = png(tmp_path / "pics" / "x.png")
        shutil.copy(tmp_path / "pics" / "x.png", tmp_path / "pics" / "same.png")
        file = jsonl(
            tmp_path / "new.jsonl",
            [
                {"item_id": "a", "title": "A", "image": "pics/x.png"},
                {"item_id": "../../b", "image": "pics/same.png"},
            ],
        )
        read = read_item_file(file)
        kept = keep_item_pictures(store, file, read)
        assert kept["a"] == kept["../../b"]
        coder = FakeCoder()
        CatalogEditor(store, coder).add(read.items, kept)
        catalog = store.open().catalog
        shutil.rmtree(tmp_path / "pics")
        assert [item.image and item.image.read_bytes() for item in catalog] == [None, data, data]
        assert {path.name for path in tmp_path.iterdir()} == {"run", "new.jsonl"}

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "new.jsonl, line 1 is not JSON"),
            ("[1]", "line 1 is a list, not an object"),
            ('{"item_id": "a", "image": "https://x.y/z.png"}', "download it first"),
            ('{"item_id": "a", "image": 3}', "picture 3 is not the path"),
        ],
    )
    def test_broken_lines_are_named(self, tmp_path, line, message):
        (tmp_path / "new.jsonl").write_text(line)
        with pytest.raises(BadTable, match=message):
            read_item_file(tmp_path / "new.jsonl")

    def test_bad_pictures_stop_everything(self, tmp_path):
        png(tmp_path / "good.png")
        (tmp_path / "bad.png").write_bytes(b"GIF89a...")
        (tmp_path / "link.png").symlink_to("/etc/hostname")
        names = ["good.png", "bad.png", "link.png", "none.png", "../../etc/passwd"]
        with pytest.raises(BadImage) as error:
            keep_files(tmp_path, names, tmp_path / "out")
        for name in names[1:]:
            assert repr(name) in str(error.value)
        assert list((tmp_path / "out").rglob("*")) == []

    def test_too_many_pixels(self, tmp_path):
        data = png(tmp_path / "x.png")
        with pytest.raises(BadImage, match="8 × 6 pixels are more than the 47 allowed"):
            keep_picture(data, tmp_path / "out", 47)
        assert not (tmp_path / "out").exists()
        name = keep_picture(data, tmp_path / "out", 48)
        assert (tmp_path / "out" / name).read_bytes() == data
