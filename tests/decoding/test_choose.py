"""What is chosen is what sorting everything would give; what is left out could not have won."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_shops import make_shop, random_codes

from utgrec.decoding import BeamSearch, CodeTrie, LeanT5, Step, beam, choose
from utgrec.recommender.vocabulary import Vocabulary

scores = st.one_of(st.integers(-3, 3).map(float), st.sampled_from([-torch.inf, -0.0, 0.5]))


@settings(deadline=None)
@given(
    rows=st.integers(1, 12).flatmap(
        lambda size: st.lists(st.lists(scores, min_size=size, max_size=size), min_size=1)
    ),
    count=st.integers(1, 14),
)
def test_the_best_are_those_of_a_stable_sort(rows, count):
    table = torch.tensor(rows)
    best, place = choose.best_of(table, count)
    nodes = torch.arange(table.shape[1]).expand_as(table)
    leaves = choose.best_leaves(nodes, table, count)
    for row, values in enumerate(rows):
        order = sorted(range(len(values)), key=lambda at: (-values[at], at))[:count]
        finite = [at for at in order if values[at] > -torch.inf]
        found = [at for at in place[row].tolist() if values[at] > -torch.inf]
        assert sorted(found) == sorted(finite)
        assert best[row].tolist() == [values[at] for at in place[row].tolist()]
        assert leaves.nodes[row, : len(finite)].tolist() == finite
        assert leaves.scores[row, : len(finite)].tolist() == [values[at] for at in finite]
        assert (leaves.scores[row, len(finite) :] == -torch.inf).all()


class SharpModel:
    """Few prefixes carry the mass, as after training; the log-probabilities are a table's."""

    def __init__(self, vocabulary: Vocabulary, seed: int, rounded: bool) -> None:
        noise = torch.randn(97, vocabulary.size, generator=torch.Generator().manual_seed(seed))
        table = (noise * 4).log_softmax(dim=1)
        self.table = table.round() if rounded else table
        self.selected = 0
        self.beams = 0

    def start(self, input_ids, attention_mask):
        return input_ids[:, :1]

    def step(self, state, tokens, parents, first, count):
        state = (state.gather(1, parents) * 31 + tokens * 7 + 1) % 97
        self.beams += tokens.numel()
        return Step(self.table[state][:, :, first : first + count], state)

    def select(self, state, users):
        self.selected += 1
        return state[users]


VOCABULARY = Vocabulary(root_size=30, leaf_size=40, code_length=3, domains=())


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("filtered", [False, True])
def test_leaving_beams_out_changes_no_result(monkeypatch, rounded, filtered):
    codes = random_codes(VOCABULARY.code_sizes, 24_000, 0)
    ids = torch.arange(2, 34)[:, None]
    mask = torch.ones_like(ids)
    given = {}
    if filtered:
        generator = torch.Generator().manual_seed(1)
        given["allowed"] = torch.rand(24_000, generator=generator) < 0.6
        given["exclude"] = torch.randint(0, 24_000, (32, 300), generator=generator)
    spared = 0
    for seed in range(2):
        model = SharpModel(VOCABULARY, seed, rounded)
        search = BeamSearch(model, VOCABULARY, CodeTrie.build(codes))
        quick = search.search(ids, mask, k=5, beam=40, **given)
        quick_beams, model.beams = model.beams, 0
        with monkeypatch.context() as patch:
            patch.setattr(choose, "_WORTH_A_PASS", 10**9)
            whole = search.search(ids, mask, k=5, beam=40, **given)
        assert torch.equal(quick.items, whole.items)
        assert torch.equal(quick.scores, whole.scores)
        assert quick_beams <= model.beams
        spared += model.beams - quick_beams
        assert model.selected > 0  # some users needed the others, and only they took them
    assert spared > 250, spared


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_selected_users_go_on_as_if_alone(dtype):
    shop = make_shop()
    lean = LeanT5(shop.model, dtype)
    state = lean.start(shop.input_ids, shop.mask)
    start, parents = torch.zeros(5, 1, dtype=torch.int64), torch.zeros(5, 3, dtype=torch.int64)
    _, state = lean.step(state, start, start, 0, 5)
    tokens = torch.randint(2, 10, (5, 3))
    _, state = lean.step(state, tokens, parents, 0, 5)
    users = torch.tensor([3, 1])
    whole = lean.step(state, tokens, parents, 0, 5).log_probs[users]
    some = lean.step(lean.select(state, users), tokens[users], parents[users], 0, 5).log_probs
    torch.testing.assert_close(some, whole, atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)
    assert isinstance(lean, beam.SelectiveModel)
