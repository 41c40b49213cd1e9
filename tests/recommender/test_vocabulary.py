"""Codes and token ids are inverses, and no two meanings share an id but the leaves."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utgrec.errors import BadConfig, InputError
from utgrec.recommender.vocabulary import END, PAD, Vocabulary


def make(**changes) -> Vocabulary:
    """Four root codes, six leaves, three codes per item, two domains."""
    values = {"root_size": 4, "leaf_size": 6, "code_length": 3, "domains": ("a", "b")}
    return Vocabulary(**{**values, "domain_slots": 5, **changes})


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 20), st.integers(0, 99)
)
def test_tokens_and_codes_are_inverses(root, leaf, length, count, seed):
    vocabulary = make(root_size=root, leaf_size=leaf, code_length=length)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.stack(
        [torch.randint(size, (count,), generator=generator) for size in vocabulary.code_sizes],
        dim=1,
    )
    tokens = vocabulary.to_tokens(codes)
    assert torch.equal(vocabulary.to_codes(tokens), codes)
    assert tokens.dtype == torch.int64
    assert bool(((tokens > END) & (tokens < vocabulary.size)).all())


def test_every_id_has_one_meaning_but_leaves_are_shared():
    vocabulary = make()
    everything = list(itertools.product(range(4), range(6), range(6)))
    tokens = vocabulary.to_tokens(torch.tensor(everything))
    roots, second, third = (set(tokens[:, place].tolist()) for place in range(3))
    assert second == third
    domains = {vocabulary.domain_token(name) for name in ("a", "b")}
    assert {PAD, END} == {0, 1}
    anyone = {vocabulary.any_domain}
    for one, other in itertools.combinations([{PAD, END}, roots, second, domains, anyone], 2):
        assert not one & other
    assert len(roots) == 4
    assert len(second) == 6
    assert vocabulary.size == 2 + 4 + 6 + 5
    assert max(domains | anyone) == vocabulary.size - 1
    assert min(domains) == vocabulary.first_domain


def test_a_domain_met_later_moves_no_token():
    before, after = make(domains=("a",)), make(domains=("a", "b", "c"))
    assert before.size == after.size
    assert before.with_domain("b").with_domain("c") == after
    assert after.with_domain("b") == after
    assert before.domain_token("a") == after.domain_token("a")
    assert before.any_domain == after.any_domain
    codes = torch.tensor([[3, 5, 0]])
    assert torch.equal(before.to_tokens(codes), after.to_tokens(codes))


def test_leading_shapes_are_kept_and_int16_is_fine():
    codes = torch.tensor([[[3, 5, 0], [0, 0, 5]]], dtype=torch.int16)
    assert make().to_tokens(codes).tolist() == [[[5, 11, 6], [2, 6, 11]]]
    big = make(root_size=2, leaf_size=32768)
    assert big.to_tokens(torch.tensor([[1, 32767, 0]], dtype=torch.int16)).tolist() == [
        [3, 32771, 4]
    ]


@pytest.mark.parametrize("codes", [[[4, 0, 0]], [[0, 6, 0]], [[0, 0, 6]], [[-1, 0, 0]], [[0, 0]]])
def test_codes_of_another_tokenizer_are_refused(codes):
    with pytest.raises(InputError, match="they come from another tokenizer"):
        make().to_tokens(torch.tensor(codes))


def test_an_unknown_domain_is_refused_by_name():
    with pytest.raises(InputError, match=r"domain 'c' is unknown here; known: a, b"):
        make().domain_token("c")
    with pytest.raises(InputError, match="known: none"):
        make(domains=()).domain_token("c")


def test_the_last_slot_is_kept_for_any_domain():
    full = make(domains=("a", "b", "c", "d"))
    assert full.domain_token("d") < full.any_domain
    with pytest.raises(BadConfig, match=r"got a, b, c, d, e with 5 slots"):
        full.with_domain("e")


@pytest.mark.parametrize(
    "changes", [{"root_size": 0}, {"code_length": 0}, {"domains": ("a", "a")}, {"domain_slots": 1}]
)
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(BadConfig):
        make(**changes)
