"""The tree: nothing lost on the way down, words that set branches apart, colours of alike codes."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from small_shops import FakeCoder, make_run

from utgrec.catalog import Catalog
from utgrec.decoding import CodeTrie
from utgrec.errors import InputError
from utgrec.serving.coder import RunCoder
from utgrec.serving.explorer.hues import code_hues, hues_of
from utgrec.serving.explorer.tree import Atlas
from utgrec.serving.likeness import look_up


def shelf(codes, sizes, *, texts=None, live=None, conflict=None, distance=None, pictured=None):
    """What the tree needs of a shelf."""
    codes, count = np.array(codes, dtype=np.int16), len(codes)
    texts = texts or ["x"] * count
    names = pa.array([f"I{place}" for place in range(count)])
    table = {"item_id": names, "title": names, "text": texts, "image": pa.nulls(count, pa.string())}
    none = np.zeros(count, dtype=bool)
    rows = SimpleNamespace(
        conflict=none if conflict is None else np.array(conflict),
        distance=np.zeros(count, np.float32) if distance is None else np.array(distance),
    )
    return SimpleNamespace(
        codes=codes,
        live=~none if live is None else np.array(live),
        pictured=none if pictured is None else np.array(pictured),
        catalog=Catalog(pa.table(table)),
        generation=SimpleNamespace(sizes=sizes, rows=rows),
        trie=CodeTrie.build(codes),
    )


@pytest.fixture(scope="module")
def large():
    """Two thousand items, some removed, some moved."""
    random = np.random.default_rng(3)
    codes = np.unique(random.integers(0, (7, 9, 50), (2500, 3)), axis=0)
    codes = random.permutation(codes)
    count = len(codes)
    return shelf(
        codes, (8, 10, 50), live=random.random(count) < 0.9, conflict=random.random(count) < 0.2
    )


def test_what_is_below_adds_up_at_every_place(large):
    atlas = Atlas(large)

    def walk(prefix):
        place = atlas.spread(prefix)
        expected = look_up(large, prefix, 0)
        assert place.items == expected.items
        assert [(b.code, b.items) for b in place.branches] == expected.branches
        below = (large.codes[:, : len(prefix)] == np.array(prefix, dtype=int)).all(axis=1)
        assert place.moved == int((below & large.live & large.generation.rows.conflict).sum())
        assert [step.code for step in place.trail] == list(prefix)
        if len(prefix) == 3:
            return
        assert sum(branch.items for branch in place.branches) == place.items
        assert sum(branch.moved for branch in place.branches) == place.moved
        named = [[b.code for b in place.branches], place.reserved, place.unused]
        size = large.generation.sizes[len(prefix)]
        assert sorted(code for part in named for code in part) == list(range(size))
        for branch in place.branches if len(prefix) < 2 else place.branches[:2]:
            walk([*prefix, branch.code])

    walk([])
    assert 7 in atlas.spread([]).unused  # no item begins with it
    assert atlas.spread([7]).items == 0 and atlas.spread([7]).branches == []


def test_codes_of_removed_items_are_reserved():
    atlas = Atlas(shelf([[0, 0], [1, 0], [1, 1]], (3, 2), live=[False, True, False]))
    place = atlas.spread([])
    assert (place.reserved, place.unused) == ([0], [2])
    assert atlas.spread([1]).reserved == [1]


def test_words_set_branches_apart():
    texts = [
        *("A blue cup for tea with 12", "The blue plate for tea", "Blue bowl, tea"),
        *("A red cup for tea", "The red plate for tea with", "Red jar, tea"),
    ]
    codes = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    one, other = Atlas(shelf(codes, (2, 3), texts=texts)).spread([]).branches
    assert one.words[0] == "blue" and other.words[0] == "red"
    both = {*one.words, *other.words}
    assert not both & {"tea", "for", "the", "with", "12"}


def test_covers_are_typical_live_items_with_pictures_first():
    atlas = Atlas(
        shelf(
            [[0, place] for place in range(6)],
            (1, 6),
            live=[True, True, True, True, True, False],
            distance=[0.1, 0.5, 0.2, 0.4, 0.3, 0.0],
            pictured=[False, True, True, True, False, True],
        )
    )
    assert atlas.spread([]).branches[0].covers == [2, 3, 1, 0]


@pytest.mark.parametrize("prefix", [[8], [-1], [0, 10], [0, 0, 0, 0]])
def test_places_that_cannot_be(large, prefix):
    with pytest.raises(InputError, match="each from 0 to below 8, 10, 50"):
        Atlas(large).spread(prefix)


def test_alike_vectors_get_alike_hues_and_all_are_used():
    angle = np.random.default_rng(0).permutation(40) * (2 * np.pi / 40)
    vectors = np.zeros((40, 6), dtype=np.float32)
    vectors[:, 1], vectors[:, 4] = np.cos(angle), 0.7 * np.sin(angle)
    hues = np.array(hues_of(vectors))
    assert sorted(hues) == [9 * place for place in range(40)]
    round_ = hues[np.argsort(angle)]
    steps = np.diff(np.append(round_, round_[0])) % 360
    assert set(steps.tolist()) in ({9}, {351})  # once round, one way or the other
    assert len(hues_of(vectors[:, :1])) == 40


def test_hues_are_of_the_runs_own_codebooks(shop_run, tmp_path):
    from utgrec.tokenizer.pretrained import ItemTokenizer

    quantizer = ItemTokenizer.from_pretrained(shop_run / "tokenizer").model.quantizer
    hues = code_hues(RunCoder(shop_run / "tokenizer"), (6, 8, 8))
    assert hues[0] == hues_of(quantizer.root.vectors.detach().numpy())
    assert hues[1] == hues[2] == hues_of(quantizer.leaf.vectors.detach().numpy())
    without = make_run(tmp_path / "run", ["a", "b"], FakeCoder())
    assert [len(one) for one in code_hues(RunCoder(without / "tokenizer"), (3, 3, 3))] == [3, 3, 3]


def test_schemas_name_what_the_tree_says():
    from utgrec.serving.explorer import schemas
    from utgrec.serving.explorer.tree import Branch, Spread

    assert set(schemas.TreeBranchOut.model_fields) == set(Branch._fields)
    assert set(Spread._fields) <= set(schemas.TreeOut.model_fields)
