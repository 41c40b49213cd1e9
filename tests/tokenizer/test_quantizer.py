"""States → codes → states: what comes back, who gets which gradient, and when it starts."""

import pytest
import torch
import torch.nn.functional as F

from utgrec.tokenizer.codebooks import EMACodebook, SimVQCodebook, VQCodebook
from utgrec.tokenizer.quantizer import QuantizerConfig, TreeQuantizer, squared_distances

KINDS = ["simvq", "vq", "ema"]


def make(kind: str = "simvq", **settings) -> TreeQuantizer:
    """A small quantiser that is past its warm-up."""
    torch.manual_seed(0)
    values = {"root_size": 5, "leaf_size": 7, "dim": 4, "warmup_steps": 0, **settings}
    return TreeQuantizer(QuantizerConfig(kind=kind, **values))


def draw(count: int = 6, length: int = 3, dim: int = 4, seed: int = 1) -> torch.Tensor:
    """Random states."""
    return torch.randn(count, length, dim, generator=torch.Generator().manual_seed(seed))


def train_step(quantizer: TreeQuantizer, states: torch.Tensor):
    """What the model does with its quantiser in one training step."""
    quantizer.prepare_step()
    out = quantizer(states)
    quantizer.count_step()
    return out


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
