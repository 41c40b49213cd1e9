"""Vectors of whole items: whose they are, how they are found again, what they learn."""

import pytest
import torch

from utgrec.errors import BadConfig
from utgrec.recommender.causal import CausalRecommender, CausalSizes, RankingConfig, WindowBatch
from utgrec.recommender.item_vectors import ItemVectors, item_keys, token_bits
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("a", "b"))
BITS = token_bits(VOCABULARY)
A, B = (VOCABULARY.domain_token(name) for name in "ab")
SIZES = CausalSizes(width=16, feed_forward=32, heads=2, distances=4, dropout=0.0)


def draw(count: int, seed: int = 0) -> torch.Tensor:
    """Different items as tokens, (count, 3)."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(8 * 16 * 16, generator=generator)[:count]
    return VOCABULARY.to_tokens(torch.stack(torch.unravel_index(places, (8, 16, 16)), dim=1))


def keys(items: torch.Tensor, domain: int = A) -> torch.Tensor:
    return item_keys(torch.full((len(items),), domain), items, BITS)


def filled(items: torch.Tensor) -> ItemVectors:
    """Own vectors that tell their row."""
    vectors = ItemVectors(keys(items), 4, BITS, 3)
    with torch.no_grad():
        vectors.own.weight.copy_(torch.arange(1.0, len(items) + 1)[:, None].expand(-1, 4))
    return vectors


class TestKeys:
    def test_domain_and_codes_make_one_key_and_no_two_the_same(self) -> None:
        items = draw(2048)  # all there are
        both = torch.cat([keys(items, A), keys(items, B)])
        assert len(both.unique()) == 2 * 2048

    def test_tokens_are_read_back_from_keys(self) -> None:
        items = draw(50)
        vectors = ItemVectors(keys(items), 4, BITS, 3)
        assert torch.equal(vectors.tokens(), items[keys(items).argsort()])

    def test_codes_too_long_for_a_key_are_refused(self) -> None:
        long = Vocabulary(root_size=256, leaf_size=512, code_length=6, domains=("a",))
        with pytest.raises(BadConfig, match="at most 5 codes"):
            token_bits(long)


class TestLookUp:
    def test_every_known_item_finds_its_row_and_no_other_any(self) -> None:
        items = draw(60)
        vectors = filled(items[:40])
        found = vectors.rows(torch.full((60,), A), items)
        assert sorted(found[:40].tolist()) == list(range(40))
        assert torch.equal(vectors.tokens()[found[:40]], items[:40])
        assert (found[40:] == 40).all()

    def test_items_of_another_domain_and_unknown_ones_have_zeros(self) -> None:
        items = draw(60)
        vectors = filled(items[:40])
        assert not vectors(torch.full((60,), B), items).any()
        assert not vectors(torch.full((20,), A), items[40:]).any()
        assert not ItemVectors(keys(items[:0]), 4, BITS, 3)(torch.full((60,), A), items).any()

    def test_shapes_follow_the_items(self) -> None:
        items = draw(6).view(2, 3, 3)
        assert filled(draw(6))(torch.tensor([A, A]), items).shape == (2, 3, 4)

    def test_knowing_others_keeps_what_both_know(self) -> None:
        items = draw(60)
        before = filled(items[:40])
        after = before.knowing(keys(items[20:60]))
        domains = torch.full((60,), A)
        assert torch.equal(after(domains, items)[20:40], before(domains, items)[20:40])
        assert not after(domains, items)[40:].any() and not after(domains, items)[:20].any()


def cycle(model_seed: int = 0, **ranking: float) -> tuple[CausalRecommender, WindowBatch]:
    """A recommender and histories in which item i + 1 follows item i."""
    torch.manual_seed(model_seed)
    items = draw(6)
    model = CausalRecommender(
        SIZES, VOCABULARY, known=keys(items), ranking=RankingConfig(**ranking)
    )
    places = (torch.arange(6)[:, None] + torch.arange(5)) % 6
    targets = torch.ones(6, 5, dtype=torch.bool)
    targets[:, 0] = False
    shop = torch.full((6,), A)
    return model, WindowBatch(shop, shop, items[places], targets)


class TestRanking:
    def test_the_loss_is_the_softmax_over_known_items(self) -> None:
        model, batch = cycle(hidden_share=0.0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.eval()
        items = model.items
        assert items is not None
        states = model.read(batch.domains, batch.items[:, :-1])[batch.targets]
        vectors = model.code_vectors(items.tokens()) + items.own.weight
        logits = model.rank_state(states) @ vectors.T
        rows = items.rows(batch.shops, batch.items)[batch.targets]
        expected = torch.nn.functional.cross_entropy(logits, rows)
        torch.testing.assert_close(model(batch)["ranking"], expected)

    def test_drawing_all_items_is_the_same_as_taking_all(self) -> None:
        model, batch = cycle(hidden_share=0.0)
        whole = model.eval()(batch)["ranking"]
        model.ranking = RankingConfig(hidden_share=0.0, most_items=5)  # the targets are all six
        torch.testing.assert_close(model(batch)["ranking"], whole)

    def test_without_names_own_vectors_are_not_shown(self) -> None:
        model, batch = cycle()
        items = model.items
        assert items is not None
        model.eval()
        unnamed = batch._replace(domains=torch.full_like(batch.domains, VOCABULARY.any_domain))
        before, named = model(unnamed)["loss"], model(batch)["loss"]
        with torch.no_grad():
            items.own.weight.normal_()
        torch.testing.assert_close(model(unnamed)["loss"], before)
        assert not torch.allclose(model(batch)["loss"], named)

    def test_weight_zero_trains_codes_alone(self) -> None:
        model, batch = cycle(weight=0.0)
        losses = model(batch)
        assert "ranking" not in losses
        losses["loss"].backward()
        assert model.rank_join.weight.grad is None

    def test_learns_what_always_follows(self) -> None:
        model, batch = cycle(hidden_share=0.0)
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
        for _ in range(100):
            loss = model(batch)["ranking"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.05

    @pytest.mark.parametrize(
        "values", [{"weight": -1.0}, {"most_items": 0}, {"hidden_share": 1.0}], ids=str
    )
    def test_bad_settings_are_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(BadConfig):
            RankingConfig(**values)


def test_own_vectors_come_back_from_disk(tmp_path) -> None:
    model, batch = cycle()
    assert model.items is not None
    with torch.no_grad():
        model.items.own.weight.normal_()
    model.eval().save(tmp_path)
    opened = CausalRecommender.load(tmp_path, SIZES, VOCABULARY)
    for name, value in model(batch).items():
        assert torch.equal(opened(batch)[name], value), name
