"""States → codes → states: what comes back, who gets which gradient, and when it starts."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from small_quantizer import KINDS, draw, make, train_step

from utgrec.tokenizer.codebooks import SimVQCodebook
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer, squared_distances


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_alone_rebuild_the_states(kind, training, length):
    quantizer = make(kind, code_length=length).train(training)
    before = quantizer.root.vectors.detach().clone()
    codes = quantizer(draw(length=length)).codes
    if kind == "ema" and training:
        assert not torch.equal(before, quantizer.root.vectors)  # they moved after they were used
        quantizer = make(kind, code_length=length).eval()
    out = quantizer(draw(length=length))
    torch.testing.assert_close(quantizer.embed(codes).cumsum(dim=1), out.states)
    torch.testing.assert_close(quantizer.embed(out.codes).cumsum(dim=1), out.states)


def test_codes_of_code_vectors_are_their_own():
    """vectors → codes is the inverse of codes → vectors."""
    quantizer = make()
    codes = torch.cartesian_prod(torch.arange(5), torch.arange(7), torch.arange(7))  # (245, 3)
    states = quantizer.embed(codes).cumsum(dim=1)
    out = quantizer(states)
    assert torch.equal(out.codes, codes)
    torch.testing.assert_close(out.loss, torch.zeros(()), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_what_the_codes_so_far_have_missed(kind):
    quantizer = make(kind).eval()
    states, out = draw(), quantizer(draw())
    steps = quantizer.to_steps(states)
    assert torch.equal(steps[:, 0], states[:, 0])
    torch.testing.assert_close(steps[:, 1:], states[:, 1:] - out.states[:, :-1])
    # So the error of the last code is all that is lost of a state.
    torch.testing.assert_close(states - out.states, steps - quantizer.embed(out.codes))


def test_steps_by_hand():
    quantizer = make("vq", dim=1, root_size=2, leaf_size=2)
    quantizer.root.place(torch.tensor([[0.0], [10.0]]))
    quantizer.leaf.place(torch.tensor([[-2.0], [1.0]]))
    states = torch.tensor([[[9.0], [11.0], [15.0]]])
    # 9 is nearest to 10; 11 - 10 = 1 is a leaf; 15 - 10 - 1 = 4 is nearest to 1.
    assert quantizer(states).codes.tolist() == [[1, 1, 1]]
    assert quantizer.to_steps(states).tolist() == [[[9.0], [1.0], [4.0]]]
    assert quantizer(states).states.tolist() == [[[10.0], [11.0], [12.0]]]


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_found_by_brute_force(kind):
    quantizer = make(kind).eval()
    states = draw(200)
    codes = quantizer(states).codes
    rebuilt = torch.zeros(200, 4)
    for level, book in enumerate([quantizer.root, quantizer.leaf, quantizer.leaf]):
        vectors = book.vectors.detach()
        gaps = (states[:, level, None] - rebuilt[:, None] - vectors).square().sum(dim=-1)
        assert torch.equal(codes[:, level], gaps.argmin(dim=-1))
        rebuilt = rebuilt + vectors[codes[:, level]]
    assert codes[:, 0].unique().tolist() == list(range(5))
    assert codes[:, 1:].unique().tolist() == list(range(7))


def test_distances_by_hand():
    found = squared_distances(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0], [4.0, -2.0]]))
    assert found.tolist() == [[0.0, 25.0]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_goes_straight_through(kind):
    quantizer = make(kind)
    states = draw().requires_grad_()
    slope = draw(seed=2)
    (quantizer(states).states * slope).sum().backward()
    assert torch.equal(states.grad, slope)
    assert all(parameter.grad is None for parameter in quantizer.parameters())


def loss_by_hand(quantizer: TreeQuantizer, states: torch.Tensor, commitment: float):
    """Loss, gradient of the states, and gradient of the code vectors, in plain sums."""
    codes = quantizer(states).codes
    # What the codes before have rebuilt is taken as given: no gradient goes through it.
    steps = states - (quantizer(states).states - quantizer.embed(codes)).detach()
    total = 0.0
    by_step = torch.zeros_like(steps)
    by_vector = {"root": torch.zeros(5, 4), "leaf": torch.zeros(7, 4)}
    for name, levels in (("root", [0]), ("leaf", [1, 2])):
        vectors = getattr(quantizer, name).vectors.detach()
        numbers = len(states) * len(levels) * 4
        for item in range(len(states)):
            for level in levels:
                code = codes[item, level]
                gap = vectors[code] - steps[item, level]
                total += 0.5 * (1 + commitment) * float(gap.square().sum()) / numbers
                by_step[item, level] = -0.5 * commitment * 2 * gap / numbers
                by_vector[name][code] += 0.5 * 2 * gap / numbers
    return total, by_step, by_vector


@pytest.mark.parametrize("commitment", [0.0, 0.25, 2.0])
def test_loss_and_gradients_by_hand(commitment):
    quantizer = make("vq", commitment=commitment)
    states = draw().requires_grad_()
    out = quantizer(states)
    out.loss.backward()
    total, by_state, by_vector = loss_by_hand(quantizer, states.detach(), commitment)
    assert out.loss.item() == pytest.approx(total)
    torch.testing.assert_close(states.grad, by_state)
    torch.testing.assert_close(quantizer.root.vectors.grad, by_vector["root"])
    torch.testing.assert_close(quantizer.leaf.vectors.grad, by_vector["leaf"])


def test_simvq_has_the_same_loss_and_sends_it_through_the_projection():
    quantizer = make("simvq")
    states = draw().requires_grad_()
    out = quantizer(states)
    out.loss.backward()
    total, by_state, by_vector = loss_by_hand(quantizer, states.detach(), 0.25)
    assert out.loss.item() == pytest.approx(total)
    torch.testing.assert_close(states.grad, by_state)
    for name in ("root", "leaf"):
        book = getattr(quantizer, name)
        slope = by_vector[name]  # (K, D); vectors = basis · Wᵀ
        torch.testing.assert_close(book.projection.weight.grad, slope.T @ book.basis.detach())
        torch.testing.assert_close(book.basis.grad, slope @ book.projection.weight.detach())


def test_ema_has_only_the_commitment():
    quantizer = make("ema").eval()
    states = draw().requires_grad_()
    out = quantizer(states)
    out.loss.backward()
    total, by_state, _ = loss_by_hand(quantizer, states.detach(), 0.25)
    assert out.loss.item() == pytest.approx(total * 0.25 / 1.25)
    torch.testing.assert_close(states.grad, by_state)
    assert list(quantizer.parameters()) == []


def test_with_a_frozen_basis_all_vectors_move_through_the_projection():
    quantizer = make("simvq")
    for book in (quantizer.root, quantizer.leaf):
        book.basis.requires_grad_(False)
    trained = [parameter for parameter in quantizer.parameters() if parameter.requires_grad]
    assert [tuple(parameter.shape) for parameter in trained] == [(4, 4), (4, 4)]
    basis, before = quantizer.root.basis.clone(), quantizer.root.vectors.detach().clone()
    optimizer = torch.optim.SGD(trained, lr=0.5)
    one_state = draw(1)  # one code is chosen, yet all vectors move
    for _ in range(3):
        optimizer.zero_grad()
        quantizer(one_state).loss.backward()
        optimizer.step()
    assert torch.equal(quantizer.root.basis, basis)
    moved = (quantizer.root.vectors - before).abs().amax(dim=1)
    assert (moved > 1e-4).all()
    torch.testing.assert_close(quantizer.root.vectors, basis @ quantizer.root.projection.weight.T)


def test_only_chosen_vectors_of_vq_move():
    quantizer = make("vq")
    out = quantizer(draw(1))
    out.loss.backward()
    chosen = F.one_hot(out.codes[:, 0], 5).bool().any(dim=0)
    assert torch.equal(quantizer.root.vectors.grad.abs().sum(dim=1) > 0, chosen)


def test_basis_starts_with_variance_one_over_the_width():
    torch.manual_seed(0)
    basis = SimVQCodebook(4000, 16).basis.detach()
    assert float(basis.var()) == pytest.approx(1 / 16, rel=0.05)
    assert float(basis.mean()) == pytest.approx(0, abs=0.01)


class TestPrecision:
    def states(self) -> torch.Tensor:
        """Many states in a space where neighbours are close."""
        return draw(500, dim=32)

    def test_autocast_changes_nothing(self):
        quantizer = make(root_size=256, leaf_size=512, dim=32)
        plain = quantizer(self.states())
        with torch.autocast("cpu", torch.bfloat16):
            cast = quantizer(self.states())
        assert torch.equal(plain.codes, cast.codes)
        assert torch.equal(plain.states, cast.states)
        assert cast.states.dtype == cast.loss.dtype == torch.float32
        assert torch.equal(plain.loss, cast.loss)

    def test_bfloat16_would_have_been_wrong(self):
        """The test above can fail: the same search in bfloat16 finds other codes."""
        quantizer = make(root_size=256, leaf_size=512, dim=32)
        exact = quantizer.nearest(self.states())
        with torch.autocast("cpu", torch.bfloat16):
            rough = quantizer.nearest(self.states())
        assert 0.001 < float((exact != rough).float().mean()) < 0.2

    def test_states_in_bfloat16_are_read_as_they_are(self):
        quantizer = make()
        states = draw().bfloat16()
        assert torch.equal(quantizer(states).codes, quantizer(states.float()).codes)


class TestWarmup:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_lasts_exactly_its_steps_and_only_in_training(self, kind):
        quantizer = make(kind, warmup_steps=3, start_from_states=False).train()
        states = draw().requires_grad_()
        for step in range(6):
            if step < 3:
                quantizer.eval()
                assert not torch.equal(quantizer(states).states, states)
                assert quantizer(states).loss.item() > 0
                quantizer.train()
            out = train_step(quantizer, states)
            assert torch.equal(out.states, states) == (step < 3)
            assert (out.loss.item() == 0) == (step < 3)
        assert int(quantizer.step) == 6

    def test_the_step_and_what_was_seen_survive_saving(self):
        first = make(warmup_steps=3, revive_every=2).train()
        for step in range(2):
            train_step(first, draw(seed=step))
        second = make(warmup_steps=3, revive_every=2).train()
        second.load_state_dict(first.state_dict())
        assert second.warming_up
        for step in range(2, 8):
            outs = []
            for quantizer in (first, second):
                torch.manual_seed(step)
                outs.append(train_step(quantizer, draw(seed=step)))
                assert quantizer.warming_up == (step < 2)
            assert torch.equal(outs[0].states, outs[1].states)
            assert torch.equal(outs[0].codes, outs[1].codes)
        assert torch.equal(first.root.vectors, second.root.vectors)

    def test_without_warmup_there_is_none(self):
        quantizer = make(warmup_steps=0).train()
        assert not quantizer.warming_up
        assert train_step(quantizer, draw()).loss.item() > 0


class TestSettle:
    def test_codes_lose_less_and_are_all_used(self):
        torch.manual_seed(0)
        config = QuantizerConfig(root_size=8, leaf_size=16, dim=4, warmup_steps=0)
        quantizer = TreeQuantizer(config).eval()
        states = torch.randn(600, 3, 4).cumsum(dim=1)

        def error() -> float:
            rebuilt = quantizer.embed(quantizer.nearest(states)).cumsum(dim=1)
            return float((states - rebuilt).square().sum(dim=-1).mean().detach())

        before = error()
        quantizer.settle(states)
        assert error() < 0.6 * before
        codes = quantizer.nearest(states)
        assert len(codes[:, 0].unique()) == 8
        assert len(codes[:, 1:].unique()) == 16

    def test_is_the_same_every_time_and_keeps_its_place(self):
        torch.manual_seed(0)
        config = QuantizerConfig(root_size=4, leaf_size=4, dim=3, warmup_steps=0, settle_rounds=40)
        states = torch.randn(80, 2, 3)
        ready = TreeQuantizer(dataclasses.replace(config, code_length=2)).eval()
        twin = copy.deepcopy(ready)
        for quantizer in (ready, twin):
            quantizer.settle(states)
        assert torch.equal(ready.root.vectors, twin.root.vectors)
        assert torch.equal(ready.leaf.vectors, twin.leaf.vectors)
        settled = ready.root.vectors.clone()
        ready.settle(states)  # k-means has converged
        torch.testing.assert_close(ready.root.vectors, settled, atol=1e-4, rtol=1e-4)

    def test_fewer_states_than_codes_are_all_kept(self):
        torch.manual_seed(0)
        config = QuantizerConfig(root_size=32, leaf_size=32, dim=4, warmup_steps=0)
        quantizer = TreeQuantizer(config).eval()
        states = 3 * torch.randn(5, 3, 4)
        quantizer.settle(states)
        assert len(quantizer.nearest(states)[:, 0].unique()) == 5
        rebuilt = quantizer.embed(quantizer.nearest(states))[:, 0]
        torch.testing.assert_close(rebuilt, states[:, 0], atol=1e-4, rtol=1e-4)
