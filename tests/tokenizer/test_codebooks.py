"""Where code vectors start, when they are revived, and how moving averages move."""

import pytest
import torch
from small_quantizer import KINDS, draw, make, train_step

from utgrec.tokenizer.codebooks import EMACodebook, SimVQCodebook, VQCodebook
from utgrec.tokenizer.quantizer import TreeQuantizer


class TestStart:
    @pytest.mark.parametrize("kind", KINDS)
    def test_code_vectors_are_placed_on_the_states(self, kind):
        """Five far-off clusters of first steps, seven of later ones: each gets code vectors."""
        settings = {"root_size": 20, "leaf_size": 28, "warmup_steps": 4}
        quantizer = make(kind, **settings).train()
        generator = torch.Generator().manual_seed(3)
        roots = 50 * torch.randn(5, 4, generator=generator)
        leaves = 50 * torch.randn(7, 4, generator=generator)
        for _ in range(4):
            choice = torch.randint(35, (40,), generator=generator)
            steps = torch.stack([roots[choice % 5], leaves[choice % 7], leaves[choice // 5]], 1)
            steps += 0.1 * torch.randn(steps.shape, generator=generator)
            train_step(quantizer, steps.cumsum(dim=1))
        before = quantizer.eval()(steps.cumsum(dim=1)).loss
        torch.manual_seed(0)
        quantizer.train().prepare_step()
        after = quantizer.eval()(steps.cumsum(dim=1)).loss
        assert after.item() < 0.001 * before.item()
        gaps = torch.cdist(quantizer.root.vectors.detach(), quantizer.root.vectors.detach())
        assert float((gaps + torch.eye(20)).min()) > 1e-4  # no two are equal

    def test_the_newest_states_are_kept(self):
        quantizer = make(warmup_steps=100).train()  # keeps 4 x 7
        for step in range(10):
            quantizer(torch.full((5, 3, 4), float(step)))
        assert int(quantizer.seen_count) == 28
        firsts = sorted(quantizer.seen[:, 0, 0].tolist(), reverse=True)
        assert firsts == [9.0] * 5 + [8.0] * 5 + [7.0] * 5 + [6.0] * 5 + [5.0] * 5 + [4.0] * 3

    def test_a_batch_larger_than_what_is_kept(self):
        quantizer = make(warmup_steps=1).train()
        train_step(quantizer, draw(100))
        assert int(quantizer.seen_count) == 28
        quantizer.prepare_step()
        assert torch.isfinite(quantizer.root.vectors).all()

    def test_fewer_states_than_codes(self):
        quantizer = make(warmup_steps=1).train()
        train_step(quantizer, draw(2))
        quantizer.prepare_step()
        assert len(quantizer.root.vectors.unique(dim=0)) == 5
        assert len(quantizer.leaf.vectors.unique(dim=0)) == 7

    def test_it_can_be_left_out(self):
        quantizer = make(warmup_steps=1, start_from_states=False, revive_every=2).train()
        before = quantizer.root.vectors.detach().clone()
        train_step(quantizer, draw())
        quantizer.prepare_step()
        assert torch.equal(quantizer.root.vectors, before)

    def test_nothing_is_placed_before_or_later(self):
        quantizer = make(warmup_steps=2, revive_every=0).train()
        moved = []
        for step in range(5):
            before = quantizer.root.vectors.detach().clone()
            train_step(quantizer, draw(seed=step))
            moved.append(not torch.equal(before, quantizer.root.vectors))
        assert moved == [False, False, True, False, False]


class TestRevival:
    def trained(self, kind: str, **settings) -> TreeQuantizer:
        """A quantiser with one code on the states and all others far away."""
        quantizer = make(kind, revive_every=3, **settings).train()
        far = 1000 + 10 * torch.arange(5.0)[:, None].expand(5, 4)
        quantizer.root.place(torch.cat([torch.zeros(1, 4), far[1:]]))
        return quantizer

    @pytest.mark.parametrize("kind", KINDS)
    def test_codes_that_nothing_chose_get_states(self, kind):
        quantizer = self.trained(kind)
        states = draw(40)
        for _ in range(3):
            train_step(quantizer, states)
        assert quantizer(states).codes[:, 0].unique().tolist() == [0]
        used = quantizer.root.vectors.detach()[0].clone()
        before = (states[:, 0] - used).square().sum(dim=1)
        out = train_step(quantizer, states)  # the fourth step begins with a revival
        assert len(out.codes[:, 0].unique()) == 5
        after = (states[:, 0] - out.states[:, 0]).square().sum(dim=1)
        assert after.sum() < 0.8 * before.sum()
        if kind != "ema":  # averages move with every step
            vectors = quantizer.root.vectors.detach()
            torch.testing.assert_close(vectors[0], used)  # the code in use stays
            gaps = torch.cdist(vectors[1:], states[:, 0]).amin(dim=1)
            torch.testing.assert_close(gaps, torch.zeros(4), atol=1e-3, rtol=0)

    def test_codes_in_use_stay_where_they_are(self):
        quantizer = make("vq", revive_every=1).train()
        codes = torch.cartesian_prod(torch.arange(5), torch.arange(7), torch.arange(7))
        states = quantizer.embed(codes).cumsum(dim=1).detach()
        before = [book.vectors.detach().clone() for book in (quantizer.root, quantizer.leaf)]
        for _ in range(3):
            train_step(quantizer, states)
        assert torch.equal(quantizer.root.vectors, before[0])
        assert torch.equal(quantizer.leaf.vectors, before[1])

    def test_it_counts_the_choices_since_the_last_one_only(self):
        quantizer = self.trained("vq")
        near, far = draw(40), draw(40) + torch.tensor([1010.0, 1010, 1010, 1010])
        for step in range(3):
            train_step(quantizer, near if step else far)
        train_step(quantizer, near)  # code 1 was chosen in the first step: it lives
        torch.testing.assert_close(quantizer.root.vectors[1], torch.full((4,), 1010.0))
        for _ in range(3):
            train_step(quantizer, near)
        assert quantizer.root.vectors[1].abs().max() < 10  # not chosen again: it has moved

    def test_wherever_memory_lies_the_bits_are_the_same(self):
        """Some solvers' last bits depend on the alignment of their work space."""
        torch.manual_seed(0)
        points, codes, kept, results = torch.randn(5, 32), torch.arange(5), [], set()
        book = SimVQCodebook(5, 32)
        for size in range(200):
            kept.append(torch.empty(1 + size * 37 % 101))  # moves what is allocated next
            book.replace(codes, points)
            results.add(book.basis.detach().numpy().tobytes())
        assert len(results) == 1

    def test_a_replaced_vector_is_what_it_was_replaced_by(self):
        for kind in (SimVQCodebook, VQCodebook, EMACodebook):
            torch.manual_seed(0)
            book, points = kind(5, 4), torch.randn(2, 4)
            before = book.vectors.detach().clone()
            book.replace(torch.tensor([3, 1]), points)
            torch.testing.assert_close(book.vectors[[3, 1]], points, check_stride=False)
            torch.testing.assert_close(book.vectors[[0, 2, 4]], before[[0, 2, 4]])

    def test_it_can_be_left_out(self):
        quantizer = self.trained("vq")
        other = make("vq", revive_every=0).train()
        other.load_state_dict(quantizer.state_dict())
        before = other.root.vectors.detach().clone()
        for _ in range(8):
            train_step(other, draw(40))
        assert torch.equal(other.root.vectors, before)

    def test_only_training_counts(self):
        quantizer = self.trained("vq").eval()
        quantizer(draw(40))
        assert int(quantizer.seen_count) == 0
        assert not quantizer.root_chosen.any()


class TestMovingAverages:
    def test_an_update_by_hand(self):
        book = EMACodebook(3, 2, decay=0.9)
        book.place(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
        book.observe(torch.tensor([[1.0, 1.0], [3.0, 1.0], [12.0, 2.0]]), torch.tensor([0, 0, 1]))
        # counts: 0.9 + 0.1 · (2, 1, 0); sums: 0.9 · old + 0.1 · the sum of the steps
        torch.testing.assert_close(book.counts, torch.tensor([1.1, 1.0, 0.9]))
        sums = torch.tensor([[0.4, 0.2], [10.2, 0.2], [0.0, 9.0]])
        torch.testing.assert_close(book.sums, sums)
        torch.testing.assert_close(book.vectors, sums / book.counts[:, None])
        torch.testing.assert_close(book.vectors[2], torch.tensor([0.0, 10.0]))  # unused: stays

    def test_a_vector_that_was_replaced_starts_anew(self):
        book = EMACodebook(2, 2, decay=0.9)
        book.place(torch.zeros(2, 2))
        for _ in range(50):
            book.observe(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))  # fades code 1 out
        book.replace(torch.tensor([1]), torch.tensor([[10.0, 0.0]]))
        book.observe(torch.tensor([[20.0, 0.0]]), torch.tensor([1]))
        # counts: 0.9 · 1 + 0.1 · 1; sums: 0.9 · 10 + 0.1 · 20
        torch.testing.assert_close(book.vectors[1], torch.tensor([11.0, 0.0]))

    def test_they_follow_a_steady_stream(self):
        quantizer = make("ema").train()
        states = draw(50)
        for _ in range(2500):
            codes = quantizer(states).codes
        for code in codes[:, 0].unique():
            mean = states[codes[:, 0] == code, 0].mean(dim=0)
            torch.testing.assert_close(quantizer.root.vectors[code], mean, atol=0.02, rtol=0.02)

    def test_they_move_in_training_only(self):
        quantizer = make("ema").eval()
        before = quantizer.root.vectors.clone()
        quantizer(draw())
        assert torch.equal(quantizer.root.vectors, before)


def test_a_frozen_basis_settles_through_its_projection():
    """Vectors that one linear map reaches are reached; the basis stays bit for bit."""
    torch.manual_seed(0)
    book = SimVQCodebook(12, 4)
    book.basis.requires_grad_(False)
    basis = book.basis.clone()
    wanted = book.basis @ torch.randn(4, 4)
    wanted[3] = 99.0  # stands for nothing, so it does not count
    points = torch.arange(12) + 1
    points[3] = 0
    before = (book.vectors.detach() - wanted)[[0, 5, 11]].norm()
    for _ in range(20):
        book.settle(wanted, points)
    assert torch.equal(book.basis, basis)
    kept = torch.arange(12) != 3
    assert (book.vectors.detach() - wanted)[kept].norm() < 0.05 * before
