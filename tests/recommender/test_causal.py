"""The decoder-only recommender: what it may see, what it learns from, how it is kept."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from utgrec.errors import BadConfig, FormatVersionError
from utgrec.recommender.causal import (
    WEIGHTS,
    CausalRecommender,
    CausalSizes,
    RankingConfig,
    WindowBatch,
)
from utgrec.recommender.item_vectors import item_keys, token_bits
from utgrec.recommender.item_words import PLACES, pack
from utgrec.recommender.vocabulary import Vocabulary

VOCABULARY = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("a", "b"))
SIZES = CausalSizes(
    width=16, feed_forward=32, heads=2, trunk_layers=2, writer_layers=2, distances=4, dropout=0.0
)


def make(**changes) -> CausalRecommender:
    """A model in which every weight matters, dropout off."""
    torch.manual_seed(0)
    changes = {
        "known": known_keys(),
        "ranking": RankingConfig(hidden_share=0.0, dropped_words=0.0),
        **changes,
    }
    model = CausalRecommender(SIZES, VOCABULARY, **changes)
    with torch.no_grad():  # norms and biases start equal
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if model.words is not None:
        keys = known_keys().unique()
        words = torch.randint(0, PLACES, (len(keys), 4))
        model.words.read(pack(keys, words, torch.full(words.shape, 0.5)))
    return model


def draw_items(windows: int, length: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 8, (windows, length, 3), generator=generator)
    return VOCABULARY.to_tokens(codes)


def known_keys() -> torch.Tensor:
    """Keys of all items that the tests draw, in domain a."""
    drawn = torch.cat([draw_items(rows, 6).flatten(0, 1) for rows in (2, 3, 4)])
    drawn = torch.cat([drawn, *(draw_items(rows, 5).flatten(0, 1) for rows in (2, 3, 4))])
    return item_keys(domains(len(drawn)), drawn, token_bits(VOCABULARY))


def domains(windows: int) -> torch.Tensor:
    return torch.full((windows,), VOCABULARY.domain_token("a"))


class TestWhatItSees:
    def test_no_state_knows_what_comes_later(self) -> None:
        model, items = make(), draw_items(2, 6)
        changed = items.clone()
        changed[:, 4] = draw_items(2, 1, seed=9)[:, 0]
        before, after = (model.read(domains(2), part) for part in (items, changed))
        torch.testing.assert_close(before[:, :5], after[:, :5])  # place 4 has seen items 0 … 3
        assert not torch.allclose(before[:, 5], after[:, 5])

    def test_a_code_is_written_from_those_before_it(self) -> None:
        model = make()
        states, written = torch.randn(3, 16), draw_items(3, 1)[:, 0, :2]
        changed = written.clone()
        changed[:, 1] = changed[:, 1] % 16 + 10
        before, after = (model.write(states, part) for part in (written, changed))
        torch.testing.assert_close(before[:, :2], after[:, :2])
        assert not torch.allclose(before[:, 2], after[:, 2])

    def test_order_and_domain_matter(self) -> None:
        model, items = make(), draw_items(1, 3)
        state = model.read(domains(1), items)[:, -1]
        assert not torch.allclose(state, model.read(domains(1), items.flip(1))[:, -1])
        other = torch.full((1,), VOCABULARY.domain_token("b"))
        assert not torch.allclose(state, model.read(other, items)[:, -1])

    def test_the_order_of_codes_within_an_item_matters(self) -> None:
        model, items = make(), draw_items(1, 2)
        items[0, 0, 1:] = torch.tensor([12, 14])
        swapped = items.clone()
        swapped[0, 0, 1:] = torch.tensor([14, 12])
        states = [model.read(domains(1), part)[:, -1] for part in (items, swapped)]
        assert not torch.allclose(*states)


class TestLoss:
    def test_is_the_cross_entropy_of_every_target_alone(self) -> None:
        """One pass over windows = one prediction per target, computed one by one."""
        model, items = make().eval(), draw_items(3, 5)
        targets = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]).bool()
        losses = model(WindowBatch(domains(3), domains(3), items, targets))
        alone = []
        for row, place in targets.nonzero().tolist():
            state = model.read(domains(1), items[row : row + 1, :place])[:, -1]
            wanted = items[row, place]
            logits = model.head(model.write(state, wanted[None, :-1]))[0]
            alone.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
        each = torch.stack(alone).mean(dim=0)
        torch.testing.assert_close(losses["codes"], each.mean())
        torch.testing.assert_close(losses["loss"], losses["codes"] + losses["ranking"])
        for position in range(3):
            torch.testing.assert_close(losses[f"code_{position + 1}"], each[position])

    def test_what_lies_beyond_a_window_changes_nothing(self) -> None:
        model, items = make().eval(), draw_items(2, 5)
        targets = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 0, 0]]).bool()
        longer = model(WindowBatch(domains(2), domains(2), items, targets))["loss"]
        cut = model(WindowBatch(domains(2), domains(2), items[:, :3], targets[:, :3]))["loss"]
        torch.testing.assert_close(longer, cut)

    def test_gradient_reaches_every_weight(self) -> None:
        model = make().train()
        targets = torch.ones(2, 5, dtype=torch.bool)
        model(WindowBatch(domains(2), domains(2), draw_items(2, 5), targets))["loss"].backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_smoothing_and_dropout_act_in_training_only(self) -> None:
        torch.manual_seed(0)
        sizes = CausalSizes(width=16, heads=2, feed_forward=32, dropout=0.5)
        model = CausalRecommender(sizes, VOCABULARY, label_smoothing=0.3)
        batch = WindowBatch(
            domains(2), domains(2), draw_items(2, 5), torch.ones(2, 5, dtype=torch.bool)
        )
        model.eval()
        assert model(batch)["loss"] == model(batch)["loss"]
        model.train()
        assert model(batch)["loss"] != model(batch)["loss"]
        smooth, plain = make(label_smoothing=0.3), make()
        assert smooth.train()(batch)["loss"] != plain.train()(batch)["loss"]
        assert smooth.eval()(batch)["loss"] == plain.eval()(batch)["loss"]

    def test_learns_what_always_follows(self) -> None:
        torch.manual_seed(0)
        model = CausalRecommender(SIZES, VOCABULARY).train()
        cycle = draw_items(1, 4)[0]  # item i + 1 follows item i
        starts = torch.arange(4)
        items = cycle[(starts[:, None] + torch.arange(6)) % 4]  # (4, 6, 3)
        targets = torch.ones(4, 6, dtype=torch.bool)
        targets[:, 0] = False  # any item may be the first
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(150):
            loss = model(WindowBatch(domains(4), domains(4), items, targets))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.05


class TestFolder:
    def test_saves_and_loads_bit_for_bit(self, tmp_path: Path) -> None:
        model = make().eval()
        model.save(tmp_path)
        opened = CausalRecommender.load(tmp_path, SIZES, VOCABULARY)
        assert not opened.training
        states = [m.read(domains(2), draw_items(2, 4)) for m in (model, opened)]
        assert torch.equal(*states)

    def test_weights_of_another_network_are_told_to_be_those(self, tmp_path: Path) -> None:
        model = make()
        model.save(tmp_path)
        weights = load_file(tmp_path / WEIGHTS)
        for changed in (
            {name: tensor for name, tensor in weights.items() if name != "head.weight"},
            weights | {"head.weight": weights["head.weight"][:3].clone()},
            weights | {"more": torch.zeros(1)},
        ):
            save_file(changed, tmp_path / WEIGHTS)
            with pytest.raises(FormatVersionError, match=r"network of another version.*train"):
                CausalRecommender.load(tmp_path, SIZES, VOCABULARY)

    def test_equal_seeds_make_equal_weights(self) -> None:
        for (name, one), (_, two) in zip(
            make().state_dict().items(), make().state_dict().items(), strict=True
        ):
            assert torch.equal(one, two), name


@pytest.mark.parametrize(
    "settings",
    [{"width": 0}, {"width": 10, "heads": 4}, {"trunk_layers": 0}, {"dropout": 1.0}],
)
def test_impossible_sizes_are_refused(settings: dict) -> None:
    with pytest.raises(BadConfig):
        CausalSizes(**settings)


class TestTakingForNew:
    def test_the_items_have_no_vector_of_their_own_and_all_others_keep_theirs(self) -> None:
        model, items = make(), draw_items(2, 6).flatten(0, 1)
        shops = domains(len(items))
        keys = item_keys(shops, items, token_bits(VOCABULARY))
        before = model.vectors_of(shops, items)
        other = model.taking_for_new(keys[:4])
        assert model.items is not None and other.items is not None and model.words is not None
        new = torch.isin(keys, keys[:4])
        assert new.any() and not new.all()
        after = other.vectors_of(shops, items)
        assert torch.equal(after[~new], before[~new])
        plain = model.code_vectors(items) + model.words(shops, items)
        assert torch.equal(after[new], plain[new])
        assert not torch.allclose(before[new], plain[new])
        assert torch.equal(model.vectors_of(shops, items), before)
        histories = draw_items(2, 6)
        states = [one.read(domains(2), histories) for one in (model, other)]
        assert not torch.allclose(*states)  # they are read as new items are, too

    def test_all_other_weights_are_shared(self) -> None:
        model = make()
        assert model.items is not None
        other = model.taking_for_new(model.items.keys[:3])
        own = "items.own.weight"
        for name, weight in model.named_parameters():
            there = other.get_parameter(name)
            assert (there.data_ptr() == weight.data_ptr()) == (name != own), name
        assert len(other.get_parameter(own)) == len(model.get_parameter(own)) - 3
