"""Candidates put in order: signs by hand, shares, and what is learned from whom."""

import dataclasses
import math

import pytest
import torch

from utgrec.errors import BadConfig, FormatVersionError
from utgrec.recommender.ranker import (
    MEMORIES,
    NEW,
    OF_NETWORK,
    SIGNS,
    Lessons,
    Ranker,
    RankerConfig,
    Signs,
    fit_ranker,
    lent_ranker,
)

USERS, CANDIDATES = 300, 12
FEW = RankerConfig(networks=3, epochs=20, width=16, batch_size=16, learning_rate=1e-2)
KEYS, TAKEN = torch.tensor([70, 10, 40]), torch.tensor([7, 1, 4])


def make_signs(users: int = 5, seed: int = 0) -> Signs:
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=random)

    scores = draw(users, CANDIDATES).log().sort(dim=1, descending=True).values
    return Signs(
        scores=scores,
        network=draw(users, CANDIDATES).log(),
        written=draw(users, CANDIDATES),
        sums=[draw(users, CANDIDATES) for _ in range(MEMORIES)],
        totals=[draw(users) for _ in range(MEMORIES)],
        taken=torch.randint(0, 9, (users, CANDIDATES), generator=random),
        lengths=torch.randint(0, 20, (users,), generator=random),
    )


def make_lessons(seed: int = 0) -> Lessons:
    """Long histories take what the first memory names most, short ones what the network does."""
    signs = make_signs(USERS, seed)
    long = signs.lengths >= 10
    best = torch.where(long, signs.sums[0].argmax(dim=1), signs.network.argmax(dim=1))
    everywhere = torch.ones(USERS, CANDIDATES, dtype=torch.bool)
    target = torch.zeros(USERS, CANDIDATES, dtype=torch.bool)
    target[torch.arange(USERS), best] = True
    target[::10] = False  # of some users the item is no candidate
    return Lessons(signs.stacked(), everywhere, target, everywhere)


def first(logits: torch.Tensor, lessons: Lessons) -> float:
    """How often the item that was taken is the first, of users of whom it is a candidate."""
    asked = lessons.target.any(dim=1)
    best = logits[asked].argmax(dim=1)
    return float((best == lessons.target[asked].int().argmax(dim=1)).float().mean())


def same(one: Ranker, two: Ranker) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:7], two[:7], strict=True))


@pytest.fixture(scope="module")
def learned() -> tuple[Lessons, Ranker, torch.Tensor]:
    lessons = make_lessons()
    return lessons, *fit_ranker([lessons], KEYS, TAKEN, FEW)


def test_signs_by_hand() -> None:
    signs = Signs(
        scores=torch.tensor([[-1.0, -2.0, -torch.inf]]),
        network=torch.tensor([[-4.0, -3.0, -torch.inf]]),
        written=torch.tensor([[0.0, 2.0, 0.0]]),
        sums=[torch.tensor([[0.0, 0.5, 0.0]])] * MEMORIES,
        totals=[torch.tensor([0.9])] * MEMORIES,
        taken=torch.tensor([[0, 3, 1]]),
        lengths=torch.tensor([4]),
    )
    stacked = signs.stacked()
    assert stacked.shape == (1, 3, SIGNS)
    by_candidate = stacked[0, :2].tolist()
    none, half, once, three, five = (math.log(value) for value in (0.01, 0.51, 1.0, 3.0, 5.0))
    first_of, second_of, whole = 0.0, -math.log(2), math.log(1.0)
    assert by_candidate[0] == pytest.approx(
        [-1.0, -4.0, 0.0, second_of, once, 1.0, five] + [none, second_of, whole] * MEMORIES,
        abs=1e-6,
    )
    assert by_candidate[1] == pytest.approx(
        [-2.0, -3.0, 2.0, first_of, three, 0.0, five] + [half, first_of, whole] * MEMORIES,
        abs=1e-6,
    )
    assert stacked.isfinite().all()


def test_what_nobody_took_counts_as_taken_once_and_is_told_from_it() -> None:
    signs = make_signs()
    never, once = (
        signs._replace(taken=torch.full_like(signs.taken, count)).stacked() for count in (0, 1)
    )
    assert (never != once).any(dim=1).any(dim=0).nonzero().flatten().tolist() == [NEW]
    assert not torch.equal(once, signs._replace(taken=signs.taken + 2).stacked())


def test_new_items_count_as_taken_once_where_no_round_had_any() -> None:
    """Lessons without known items that are taken for new; what nobody took may be among them."""
    lessons = make_lessons()
    lessons.signs[..., NEW] = 0.0
    known = torch.ones_like(lessons.known)
    known[:, 5] = False
    lessons.signs[:, 5, NEW] = 1.0
    ranker, _ = fit_ranker([lessons._replace(known=known)], KEYS, TAKEN, FEW)
    others = make_lessons(seed=1).signs
    others[..., OF_NETWORK] = ranker.mean[0, 0, OF_NETWORK]  # which is not heard of new items
    new, old = (
        ranker.logits(others.index_fill(2, torch.tensor([NEW]), flag)) for flag in (1.0, 0.0)
    )
    assert torch.equal(new, old)


def test_rounds_teach_alike_and_a_user_is_left_out_of_all() -> None:
    """In the second round all take what is last by the mixture, which the first never shows."""
    lessons = make_lessons()
    last = torch.zeros_like(lessons.target)
    last[:, -1] = True
    signs = lessons.signs.clone()
    signs[..., NEW] = 0.0
    told = signs.index_fill(2, torch.tensor([NEW]), 1.0)
    rounds = [lessons._replace(signs=signs), lessons._replace(signs=told, target=last)]
    ranker, unseen = fit_ranker(rounds, KEYS, TAKEN, FEW)
    assert first(unseen, lessons) > 0.7  # these are logits of the first round
    logits = ranker.logits(told).mean(dim=0)
    assert (logits.argmax(dim=1) == CANDIDATES - 1).float().mean() > 0.9
    # What a user says in the second round is not heard by the network that judges the user either.
    moved = last.clone()
    moved[3] = moved[3].roll(1)
    other, judged = fit_ranker([rounds[0], rounds[1]._replace(target=moved)], KEYS, TAKEN, FEW)
    assert torch.equal(judged[3], unseen[3]) and not same(other, ranker)


def test_shares_add_up_to_one_and_nobody_gets_nothing(learned) -> None:
    _, ranker, _ = learned
    signs = make_signs()
    whole = ranker.shares(signs)
    torch.testing.assert_close(whole.exp().sum(dim=1), torch.ones(5))
    signs.scores[0, 4:] = -torch.inf
    signs.scores[1] = -torch.inf
    part = ranker.shares(signs)
    assert (part[0, 4:] == -torch.inf).all() and (part[1] == -torch.inf).all()
    torch.testing.assert_close(part[[0, 2]].exp().sum(dim=1), torch.ones(2))
    assert torch.equal(part[2:], whole[2:])


def test_it_learns_whom_to_trust_when(learned) -> None:
    lessons, ranker, unseen = learned
    mixture = first(lessons.signs[..., 0], lessons)
    assert first(unseen, lessons) > 0.7 > 0.3 > mixture
    others = make_lessons(seed=1)
    logits = ranker.logits(others.signs).mean(dim=0)
    assert first(logits, others) > 0.7
    # Every network is about as good as the others: each saw two thirds of the users.
    for one in ranker.logits(others.signs):
        assert first(one, others) > 0.6


def test_users_are_judged_by_the_network_that_did_not_see_them(learned) -> None:
    """Whoever took something else changes the other networks, and not the own one."""
    lessons, ranker, unseen = learned
    logits = ranker.logits(lessons.signs)  # (E, U, C)
    own = (logits - unseen).abs().amax(dim=2).argmin(dim=0)  # (U,)
    torch.testing.assert_close(logits[own, torch.arange(USERS)], unseen)
    counts = torch.bincount(own, minlength=FEW.networks)
    assert counts.max() - counts.min() <= 1
    user = 3
    target = lessons.target.clone()
    target[user] = target[user].roll(1)
    other, judged = fit_ranker([lessons._replace(target=target)], KEYS, TAKEN, FEW)
    moved = [not torch.equal(a, b) for a, b in zip(ranker.inner, other.inner, strict=True)]
    assert moved[own[user]] is False and sum(moved) == FEW.networks - 1
    assert torch.equal(judged[user], unseen[user])


def test_what_nobody_took_before_teaches_nothing() -> None:
    lessons = make_lessons()
    known = torch.ones_like(lessons.known)
    known[:, 5] = False
    lessons = lessons._replace(known=known)
    before, _ = fit_ranker([lessons], KEYS, TAKEN, FEW)
    # As a rival: its signs may be anything (those that all are standardised by stay as they are).
    swapped = lessons.signs.clone()
    swapped[:, 5] = swapped[:, 5].roll(1, dims=0)
    after, _ = fit_ranker([lessons._replace(signs=swapped)], KEYS, TAKEN, FEW)
    torch.testing.assert_close(after.inner, before.inner, atol=1e-4, rtol=1e-3)
    # As an answer: whoever took it is as whoever took no candidate.
    target = lessons.target.clone()
    target[target[:, 5]] = False
    after, _ = fit_ranker([lessons._replace(target=target)], KEYS, TAKEN, FEW)
    assert same(after, before)
    everyone, _ = fit_ranker([lessons._replace(known=lessons.found)], KEYS, TAKEN, FEW)
    assert not torch.allclose(everyone.inner, before.inner, atol=1e-2)


def test_no_sign_counts_for_more_than_five_deviations(learned) -> None:
    lessons, ranker, _ = learned
    far, farther = (ranker.mean[0] + many * ranker.deviation[0] for many in (5.0, 500.0))
    one, other = (ranker.logits(at.view(1, 1, -1)) for at in (far, farther))
    near = ranker.logits((ranker.mean[0] + 4 * ranker.deviation[0]).view(1, 1, -1))
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, near)
    assert lessons.signs.isfinite().all()


def test_the_network_is_not_heard_of_new_items(learned) -> None:
    lessons, ranker, _ = learned
    told = lessons.signs[:20].clone()
    told[:, ::2, NEW] = 1.0
    told[:, 1::2, NEW] = 0.0
    other = told.clone()
    other[..., OF_NETWORK] += 1.0
    one, two = (ranker.logits(signs) for signs in (told, other))
    assert torch.equal(one[..., ::2], two[..., ::2])
    assert not torch.isclose(one[..., 1::2], two[..., 1::2]).any(dim=0).all()


def test_seeds_decide(learned) -> None:
    lessons, one, _ = learned
    two, _ = fit_ranker([lessons], KEYS, TAKEN, FEW)
    assert same(one, two)
    three, _ = fit_ranker([lessons], KEYS, TAKEN, dataclasses.replace(FEW, seed=1))
    assert not torch.equal(one.inner, three.inner)


def test_a_file_of_it(learned, tmp_path) -> None:
    _, ranker, _ = learned
    ranker.save(tmp_path / "shop.safetensors")
    again = Ranker.load(tmp_path / "shop.safetensors")
    assert same(again, ranker) and again.candidates == ranker.candidates == 100
    asked = torch.tensor([[40, 41], [10, 70]])
    assert again.taken_of(asked).tolist() == [[4, 0], [1, 7]]
    assert again._replace(keys=KEYS[:0], taken=TAKEN[:0]).taken_of(asked).tolist() == [[0, 0]] * 2


def test_a_file_that_reads_other_signs_is_refused(learned, tmp_path) -> None:
    _, ranker, _ = learned
    path = tmp_path / "shop.safetensors"
    ranker._replace(inner=ranker.inner[:, 1:]).save(path)
    with pytest.raises(FormatVersionError, match=f"18 signs .* has {SIGNS}; .*recommender rank"):
        Ranker.load(path)


def test_lent_networks_say_together_what_each_said_at_home(learned, tmp_path) -> None:
    lessons, one, _ = learned
    moved = make_lessons(seed=2)
    moved = moved._replace(signs=3 * moved.signs + 1)  # another shop has other measures
    other, _ = fit_ranker([moved], KEYS[:2], TAKEN[:2], dataclasses.replace(FEW, candidates=40))
    lent = lent_ranker([one, other])
    apart = torch.cat([ranker.logits(lessons.signs) for ranker in (one, other)])
    torch.testing.assert_close(lent.logits(lessons.signs), apart)
    assert (one.lent, other.lent, lent.lent, lent.candidates) == (False, False, True, 100)
    assert lent.taken_of(KEYS).tolist() == [0, 0, 0]
    here = lent.knowing(torch.tensor([9, 3]), torch.tensor([5, 6]))
    assert here.taken_of(torch.tensor([3, 9, 70])).tolist() == [6, 5, 0]
    here.save(tmp_path / "shop.safetensors")
    again = Ranker.load(tmp_path / "shop.safetensors")
    assert same(again, here) and again.lent


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"networks": 1}, "networks must be 0, or at least 2"),
        ({"networks": -1}, "networks"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"users": 0}, "users"),
        ({"newcomers": -0.1}, r"newcomers must be in \[0, 1\), got -0.1"),
        ({"newcomers": 1.0}, "newcomers"),
        ({"width": 0}, "width"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
    ],
)
def test_bad_settings(setting, named) -> None:
    with pytest.raises(BadConfig, match=named):
        RankerConfig(**setting)
