"""InfoNCE between an item and its partner, by hand and by its symmetries."""

import math

import pytest
import torch

from utgrec.tokenizer.alignment import alignment_loss

NOBODY = torch.zeros(3, 3, dtype=torch.bool)


def states() -> torch.Tensor:
    """Three items, two positions, two dimensions; lengths differ, since only angles count."""
    return torch.tensor(
        [
            [[2.0, 0.0], [0.0, 1.0]],
            [[3.0, 3.0], [0.0, 5.0]],
            [[0.0, 1.0], [1.0, 0.0]],
        ]
    )


def test_three_items_by_hand():
    half = math.sqrt(0.5)
    # Position 1: cos(0,1) = √½, cos(0,2) = 0, cos(1,2) = √½. Position 2: 1, 0, 0.
    expected = [
        -math.log(math.exp(half / 0.5) / (math.exp(half / 0.5) + math.exp(0))),  # anchor 0
        -math.log(math.exp(half / 0.5) / (math.exp(half / 0.5) + math.exp(half / 0.5))),  # 1
        -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0))),
        -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0))),
    ]
    loss = alignment_loss(states(), torch.tensor([1, 0, -1]), NOBODY, temperature=0.5)
    assert loss.item() == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_the_default_temperature_is_the_papers():
    partner = torch.tensor([1, 0, -1])
    default = alignment_loss(states(), partner, NOBODY)
    assert torch.equal(default, alignment_loss(states(), partner, NOBODY, temperature=0.1))


def test_a_known_neighbour_is_no_negative():
    """Item 2 looks like item 1; unless it is masked, it counts against the pair."""
    partner = torch.tensor([1, 0, -1])
    known = NOBODY.clone()
    known[1, 2] = known[2, 1] = True
    masked = alignment_loss(states(), partner, known, temperature=0.5)
    unmasked = alignment_loss(states(), partner, NOBODY, temperature=0.5)
    half = math.sqrt(0.5)
    change = math.log(math.exp(half / 0.5) * 2) - half / 0.5
    change += math.log(math.exp(2) + 1) - 2  # the same anchor at position 2
    assert (unmasked - masked).item() == pytest.approx(change / 4, rel=1e-5)


def test_the_partner_counts_even_though_it_is_a_neighbour():
    partner = torch.tensor([1, 0, -1])
    known = NOBODY.clone()
    known[0, 1] = known[1, 0] = True
    assert torch.equal(
        alignment_loss(states(), partner, known), alignment_loss(states(), partner, NOBODY)
    )


def test_items_without_partner_are_negatives_only():
    """Moving item 2 changes the loss, but it never stands as an anchor."""
    partner = torch.tensor([1, 0, -1])
    moved = states()
    moved[2] = -moved[2]
    assert not torch.equal(
        alignment_loss(moved, partner, NOBODY), alignment_loss(states(), partner, NOBODY)
    )
    known = torch.ones(3, 3, dtype=torch.bool)
    free = states().requires_grad_()
    loss = alignment_loss(free, partner, known)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)  # nothing is left to tell it from
    assert torch.equal(free.grad[2], torch.zeros(2, 2))


def test_nobody_has_a_partner():
    free = states().requires_grad_()
    loss = alignment_loss(free, torch.full((3,), -1), NOBODY)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(free.grad, torch.zeros_like(free))


def test_the_order_of_the_batch_does_not_matter():
    torch.manual_seed(0)
    items = torch.randn(6, 3, 4)
    partner = torch.tensor([1, 0, 5, -1, 5, 2])
    known = torch.rand(6, 6) > 0.7
    loss = alignment_loss(items, partner, known)
    order = torch.tensor([3, 5, 0, 4, 1, 2])
    place = order.argsort()  # where each old row went
    shuffled = torch.where(partner[order] >= 0, place[partner[order]], -1)
    torch.testing.assert_close(alignment_loss(items[order], shuffled, known[order][:, order]), loss)


def test_lengths_do_not_matter_and_pairs_are_pulled_together():
    partner = torch.tensor([1, 0, -1])
    free = states().requires_grad_()
    loss = alignment_loss(free, partner, NOBODY)
    torch.testing.assert_close(alignment_loss(7 * states(), partner, NOBODY), loss.detach())
    loss.backward()
    nearer = alignment_loss((free - 0.1 * free.grad).detach(), partner, NOBODY)
    assert nearer.item() < loss.item()


def test_positions_are_averaged():
    torch.manual_seed(1)
    items, partner = torch.randn(5, 3, 4), torch.tensor([1, 0, 3, 2, -1])
    known = torch.zeros(5, 5, dtype=torch.bool)
    each = [alignment_loss(items[:, place : place + 1], partner, known) for place in range(3)]
    torch.testing.assert_close(alignment_loss(items, partner, known), torch.stack(each).mean())
