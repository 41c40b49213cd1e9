"""Four voices about every item, mixed: the same as the formula worked out by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from utgrec.data.split import Split
from utgrec.decoding import (
    BeamSearch,
    CodeTrie,
    Hits,
    ItemTable,
    LeanCausal,
    MixedSearch,
    exact_causal_scores,
    item_table,
    make_search,
    mixed,
)
from utgrec.decoding.voices import Voices
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.companions import (
    CatalogCompanions,
    Companions,
    CompanionsConfig,
    count_companions,
)
from utgrec.recommender.contents import ContentsConfig, compare_contents
from utgrec.recommender.histories import CodedDomain, HistoryEncoder
from utgrec.recommender.item_vectors import catalog_keys, item_keys, token_bits
from utgrec.recommender.mixing import CODES_ALONE, Mixing
from utgrec.recommender.networks import show_words
from utgrec.recommender.ranker import SIGNS, Ranker, Signs
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("shop",))
ITEMS = 200
NETWORK = Mixing(vectors=1.0, companions=0.0, contents=0.0)


class Shop:
    """A recommender with random weights in which three of four items are known."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        places = rng.permutation(8 * 16 * 16)[:ITEMS]
        self.codes = np.stack(np.unravel_index(places, (8, 16, 16)), axis=1).astype(np.int16)
        known = VOCABULARY.to_tokens(torch.from_numpy(self.codes[:150].astype(np.int64)))
        shop = torch.full((150,), VOCABULARY.domain_token("shop"))
        sizes = CausalSizes(width=32, feed_forward=48, heads=4, distances=6)
        self.model = CausalRecommender(
            sizes, VOCABULARY, known=item_keys(shop, known, token_bits(VOCABULARY))
        ).eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
        encoder = HistoryEncoder("shop", self.codes, VOCABULARY, max_items=10)
        self.histories = [rng.integers(0, ITEMS, size) for size in (1, 10, 0, 4, 14, 2)]
        self.tokens, self.mask = encoder.encode(self.histories)
        self.trie = CodeTrie.build(self.codes)
        train = rng.integers(0, 150, 400).astype(np.int32)
        offsets = np.arange(0, 401, 8)
        held = np.full(50, -1, dtype=np.int32)
        split = Split(train=train, offsets=offsets, valid=held, test=held)
        coded = CodedDomain("shop", self.codes, split)
        self.memory = count_companions([coded], VOCABULARY, CompanionsConfig(neighbours=9))
        texts = [" ".join(f"word{word}" for word in rng.integers(0, 150, 8)) for _ in range(ITEMS)]
        self.said = compare_contents([coded], [texts], VOCABULARY, ContentsConfig(neighbours=7))
        assert (self.said.alike.similar > 0).float().mean() > 0.9
        show_words(self.model, [coded], VOCABULARY, self.said)

    def companions(self, memory: Companions | None = None) -> CatalogCompanions:
        return CatalogCompanions(memory or self.memory, VOCABULARY, "shop", self.codes)

    def contents(self) -> CatalogCompanions:
        return self.companions(self.said.alike)

    def ranker(self, candidates: int) -> Ranker:
        """One with random weights, which knows how often some items were taken."""
        random = torch.Generator().manual_seed(7)
        keys = self.memory.keys

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=random)

        return Ranker(
            mean=draw(SIGNS),
            deviation=draw(SIGNS).abs() + 1,
            inner=draw(3, SIGNS, 8) / 3,
            inner_bias=draw(3, 1, 8),
            outer=draw(3, 8, 1),
            keys=keys,
            taken=torch.arange(len(keys)) % 7,
            candidates=candidates,
        )

    def search(self, mixing: Mixing, ranker: Ranker | None = None) -> Any:
        return make_search(
            self.model,
            LeanCausal(self.model),
            VOCABULARY,
            self.trie,
            "shop",
            self.codes,
            mixing,
            self.companions(),
            self.contents(),
            ranker,
        )

    def ranked(
        self, voices: Voices, mixing: Mixing, ranker: Ranker, histories: list[np.ndarray]
    ) -> torch.Tensor:
        """Scores of all items once the best are put in order, worked out over all items: (b, N)."""
        mixed_scores = voices.mix(mixing)
        count = min(ranker.candidates, ITEMS)
        best = mixed_scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        encoder = HistoryEncoder("shop", self.codes, VOCABULARY, max_items=10)
        whole, newest = (
            encoder.encode([history[-most:] for history in histories]) for most in (10, 1)
        )
        sums, totals = [], []
        for memory, used in (
            (self.companions(), mixing.companions),
            (self.contents(), mixing.contents),
        ):
            for tokens in (whole, newest):
                values = memory.weigh(*tokens, mixing.decay) * voices.usable * (used > 0)
                sums.append(values.gather(1, best))
                totals.append(values.sum(dim=1))
        keys = ranker.keys.tolist()
        own = catalog_keys(VOCABULARY, "shop", self.codes).tolist()
        counts = [int(ranker.taken[keys.index(key)]) if key in keys else 0 for key in own]
        signs = Signs(
            scores=mixed_scores.gather(1, best),
            network=voices.network(mixing.vectors).gather(1, best),
            written=(voices.codes - voices.codes.amin(dim=1, keepdim=True)).gather(1, best),
            sums=sums,
            totals=totals,
            taken=torch.tensor(counts)[best],
            lengths=torch.tensor([min(len(history), 10) for history in histories]),
        )
        together = mixed_scores.gather(1, best).logsumexp(dim=1, keepdim=True)
        return mixed_scores.scatter(1, best, together + ranker.shares(signs))

    def exact(self, mixing: Mixing) -> torch.Tensor:
        """Scores of all items, as the definition says: (B, N)."""
        codes = exact_causal_scores(
            self.model, VOCABULARY, self.tokens, self.mask, torch.from_numpy(self.codes)
        )
        table = ItemTable(self.model, VOCABULARY, "shop", self.codes)
        vectors = table.scores(LeanCausal(self.model).start(self.tokens, self.mask).states)
        network = ((codes + mixing.vectors * vectors) / (1 + mixing.vectors)).softmax(dim=1)
        for_network, remembered = torch.ones(6, 1), torch.zeros(6, ITEMS)
        for weight, memory in (
            (mixing.companions, self.companions()),
            (mixing.contents, self.contents()),
        ):
            sums = memory.weigh(self.tokens, self.mask, mixing.decay)
            total = sums.sum(dim=1, keepdim=True)
            for_network -= weight * (total > 0)
            remembered += weight * sums / total.clamp(min=1e-12)
        return torch.log(for_network * network + remembered)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


def test_scores_of_the_table_are_those_of_the_network(shop: Shop) -> None:
    model, items = shop.model, shop.model.items
    assert items is not None
    tokens = VOCABULARY.to_tokens(torch.from_numpy(shop.codes.astype(np.int64)))
    domain = torch.full((ITEMS,), VOCABULARY.domain_token("shop"))
    assert model.words is not None and model.words(domain, tokens).any()
    vectors = model.code_vectors(tokens) + items(domain, tokens) + model.words(domain, tokens)
    assert not torch.allclose(vectors[:150], model.code_vectors(tokens)[:150])
    history = tokens[torch.from_numpy(shop.histories[3])][None]
    state = model.read(domain[:1], history)[:, -1]
    expected = (model.rank_state(state) @ vectors.T).log_softmax(dim=1)
    found = ItemTable(model, VOCABULARY, "shop", shop.codes).scores(
        LeanCausal(model).start(shop.tokens[3:4], shop.mask[3:4]).states
    )
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "mixing",
    [
        NETWORK,
        Mixing(vectors=4.0, companions=0.3, contents=0.2),
        Mixing(vectors=0.0, companions=0.6, contents=0.0, decay=0.5),
        Mixing(vectors=1.0, companions=0.0, contents=0.6),
    ],
    ids=str,
)
def test_full_beam_equals_the_formula(shop: Shop, mixing: Mixing) -> None:
    hits = shop.search(mixing).search(shop.tokens, shop.mask, k=ITEMS, beam=ITEMS)
    best = shop.exact(mixing).sort(dim=1, descending=True)
    torch.testing.assert_close(hits.scores, best.values, atol=1e-3, rtol=1e-3)
    assert (hits.items.sort(dim=1).values == torch.arange(ITEMS)).all()
    torch.testing.assert_close(hits.scores.exp().sum(dim=1), torch.ones(6))


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
@pytest.mark.parametrize(
    "mixing",
    [
        NETWORK,
        Mixing(vectors=0.4, companions=0.5, contents=0.2),
        Mixing(vectors=0.0, companions=0.3, contents=0.0),
        Mixing(vectors=2.0, companions=0.0, contents=0.6),
    ],
    ids=str,
)
@pytest.mark.parametrize("beam", [1, 7, 60])
def test_the_best_are_those_of_all_scores(
    shop: Shop, mixing: Mixing, beam: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without filters: what is found without looking at every score is the same."""
    if not compiled:
        monkeypatch.setattr(item_table, "find_functions", lambda _: None)
        monkeypatch.setattr(item_table, "_SCORES_AT_ONCE", 500)
    monkeypatch.setattr(item_table, "_PAIRS_AT_ONCE", 70)
    monkeypatch.setattr(mixed, "_USERS_AT_ONCE", 4)
    search = shop.search(mixing)
    few = torch.zeros(ITEMS, dtype=torch.bool)
    few[3::11] = True
    seen = [history.tolist() for history in shop.histories]
    near = search.search(shop.tokens, shop.mask, k=80, beam=beam).items.tolist()
    most = [list(range(ITEMS)), *near[1:]]  # for the first user there is nothing left
    for allowed, exclude in ((None, None), (few, None), (None, near), (few, seen), (None, most)):
        for k in (1, 10, ITEMS + 5):
            given = {"k": k, "beam": beam, "allowed": allowed, "exclude": exclude}
            hits = search.search(shop.tokens, shop.mask, **given)
            scores = torch.cat(
                [voices.mix(mixing) for voices in search.voices(shop.tokens, shop.mask, **given)]
            )  # (B, N)
            best = torch.nn.functional.pad(
                scores.sort(dim=1, descending=True).values, (0, 5), value=-torch.inf
            )
            torch.testing.assert_close(hits.scores, best[:, :k], atol=2e-5, rtol=1e-5)
            found = hits.items >= 0
            assert (found == best[:, :k].isfinite()).all()
            own = scores.gather(1, hits.items.clamp(min=0))
            torch.testing.assert_close(own[found], hits.scores[found], atol=2e-5, rtol=1e-5)
            for row in hits.items.tolist():
                there = [item for item in row if item >= 0]
                assert len(set(there)) == len(there)


@pytest.mark.parametrize(
    "mixing",
    [
        Mixing(vectors=0.4, companions=0.5, contents=0.2, decay=0.5),
        Mixing(vectors=2.0, companions=0.0, contents=0.6),
        Mixing(vectors=3.0, companions=0.4, contents=0.0, decay=1.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("candidates", [1, 12, 2 * ITEMS])
@pytest.mark.parametrize("beam", [7, ITEMS])
def test_a_ranker_puts_the_best_in_order(
    shop: Shop, mixing: Mixing, candidates: int, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed, "_USERS_AT_ONCE", 4)
    ranker = shop.ranker(candidates)
    search = shop.search(mixing, ranker)
    few = torch.zeros(ITEMS, dtype=torch.bool)
    few[3::4] = True
    seen = [history.tolist() for history in shop.histories]
    for allowed, exclude in ((None, None), (few, None), (None, seen), (few, seen)):
        for k in (1, 10, ITEMS + 5):
            given = {"k": k, "beam": beam, "allowed": allowed, "exclude": exclude}
            hits = search.search(shop.tokens, shop.mask, **given)
            expected = torch.cat(
                [
                    shop.ranked(voices, mixing, ranker, shop.histories[voices.users])
                    for voices in search.voices(shop.tokens, shop.mask, **given)
                ]
            )
            best = torch.nn.functional.pad(
                expected.sort(dim=1, descending=True).values, (0, 5), value=-torch.inf
            )
            torch.testing.assert_close(hits.scores, best[:, :k], atol=2e-4, rtol=1e-4)
            found = hits.items >= 0
            own = expected.gather(1, hits.items.clamp(min=0))
            torch.testing.assert_close(own[found], hits.scores[found], atol=2e-4, rtol=1e-4)
    # Scores are still those of a distribution over all items.
    torch.testing.assert_close(expected.exp().sum(dim=1), torch.ones(len(shop.tokens)))
    plain = shop.search(mixing).search(shop.tokens, shop.mask, k=10, beam=beam)
    ranked = search.search(shop.tokens, shop.mask, k=10, beam=beam)
    assert torch.equal(ranked.items, plain.items) == (candidates == 1)


@pytest.mark.parametrize("ranks", [False, True], ids=["mixture", "ranker"])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_nobody_has_anything_left(
    shop: Shop, compiled: bool, ranks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(item_table, "find_functions", lambda _: None)
    everything = [list(range(ITEMS))] * len(shop.tokens)
    search = shop.search(Mixing(), shop.ranker(12) if ranks else None)
    hits = search.search(shop.tokens, shop.mask, k=3, beam=5, exclude=everything)
    assert (hits.items == -1).all() and (hits.scores == -torch.inf).all()


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_threads_change_nothing(
    shop: Shop, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(item_table, "find_functions", lambda _: None)
    search, before = shop.search(Mixing()), torch.get_num_threads()
    alone = search.search(shop.tokens, shop.mask, k=10, beam=20)
    try:
        torch.set_num_threads(3)
        several = search.search(shop.tokens, shop.mask, k=10, beam=20)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(several.scores, alone.scores, atol=1e-5, rtol=1e-5)


def test_a_history_is_read_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    start = LeanCausal.start

    def count(self: LeanCausal, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        read.append(len(ids))
        return start(self, ids, mask)

    monkeypatch.setattr(LeanCausal, "start", count)
    shop.search(Mixing()).search(shop.tokens, shop.mask, k=5, beam=20)
    assert sum(read) == len(shop.tokens)


def test_codes_alone_are_beam_search(shop: Shop) -> None:
    assert isinstance(shop.search(CODES_ALONE), BeamSearch)
    assert isinstance(shop.search(NETWORK), MixedSearch)
    plain = shop.search(CODES_ALONE).search(shop.tokens, shop.mask, k=10, beam=ITEMS)
    nearly = shop.search(Mixing(vectors=0.0, companions=1e-6, contents=0.0))
    assert isinstance(nearly, MixedSearch)
    assert torch.equal(nearly.search(shop.tokens, shop.mask, k=10, beam=ITEMS).items, plain.items)


def test_vectors_alone_decide_when_they_weigh_much(shop: Shop) -> None:
    """Also about items that no beam ends in."""
    hits = shop.search(Mixing(vectors=1e5, companions=0.0, contents=0.0)).search(
        shop.tokens, shop.mask, k=10, beam=2
    )
    states = LeanCausal(shop.model).start(shop.tokens, shop.mask).states
    near = ItemTable(shop.model, VOCABULARY, "shop", shop.codes).scores(states)
    assert torch.equal(hits.items, near.topk(10, dim=1).indices)


@pytest.mark.parametrize("ranks", [False, True], ids=["mixture", "ranker"])
def test_a_user_gets_the_same_alone_and_among_others(shop: Shop, ranks: bool) -> None:
    search = shop.search(Mixing(), shop.ranker(12) if ranks else None)
    together = search.search(shop.tokens, shop.mask, k=5, beam=20)
    for user in range(len(shop.tokens)):
        alone: Hits = search.search(
            shop.tokens[user : user + 1], shop.mask[user : user + 1], k=5, beam=20
        )
        assert torch.equal(alone.items[0], together.items[user])


def test_filters_and_seen_items_hold_for_all_voices(shop: Shop) -> None:
    allowed = torch.zeros(ITEMS, dtype=torch.bool)
    allowed[::7] = True
    skipped = [history.tolist() for history in shop.histories]
    hits = shop.search(Mixing()).search(
        shop.tokens, shop.mask, k=40, beam=4, allowed=allowed, exclude=skipped
    )
    for row, history in enumerate(shop.histories):
        expected = set(range(0, ITEMS, 7)) - set(history.tolist())
        found = [item for item in hits.items[row].tolist() if item >= 0]
        assert set(found) == expected and len(found) == len(expected)
        assert (hits.scores[row, len(found) :] == -torch.inf).all()


def test_of_whom_nothing_is_remembered_hears_the_network(shop: Shop) -> None:
    mixing = Mixing(vectors=1.0, companions=0.5, contents=0.3)
    empty = 2  # a history without items
    remembered = shop.search(mixing).search(shop.tokens, shop.mask, k=10, beam=50)
    without = shop.search(NETWORK).search(shop.tokens, shop.mask, k=10, beam=50)
    assert torch.equal(remembered.items[empty], without.items[empty])
    torch.testing.assert_close(remembered.scores[empty], without.scores[empty])
    assert not torch.equal(remembered.items[1], without.items[1])
