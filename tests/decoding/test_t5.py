"""The lean T5 is transformers' T5: same numbers, less work."""

import pytest
import torch
from tiny_shops import random_t5

from utgrec.decoding import LeanT5
from utgrec.errors import InputError

VOCAB = 40


@pytest.fixture
def histories():
    """Six histories of 1 to 30 tokens: long enough for every kind of position bucket."""
    torch.manual_seed(5)
    mask = (torch.arange(30) < torch.tensor([30, 1, 17, 5, 29, 12])[:, None]).long()
    return torch.randint(2, VOCAB, mask.shape) * mask, mask


def untie(model):
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


MODELS = {
    "tied": lambda: random_t5(VOCAB, 0),
    "untied": lambda: untie(random_t5(VOCAB, 1)),
    "unscaled head": lambda: random_t5(VOCAB, 2, tie_word_embeddings=False),
    "uneven depth": lambda: random_t5(VOCAB, 3, num_layers=1, num_decoder_layers=3, num_heads=4),
    "other buckets": lambda: random_t5(
        VOCAB, 4, relative_attention_num_buckets=32, relative_attention_max_distance=128
    ),
}


@torch.inference_mode()
def steps_of_both(model, lean, input_ids, mask, steps=4, beams=3):
    """Log-probabilities of each step, by transformers on whole sequences and by the lean model."""
    users = len(input_ids)
    generator = torch.Generator().manual_seed(0)
    state = lean.start(input_ids, mask)
    sequences = torch.zeros(users, 1, 1, dtype=torch.int64)  # (B, W, T)
    parents = torch.zeros(users, 1, dtype=torch.int64)
    pairs = []
    for _ in range(steps):
        width = sequences.shape[1]
        log_probs, state = lean.step(state, sequences[:, :, -1], parents, 0, VOCAB)
        logits = model(
            input_ids=input_ids.repeat_interleave(width, 0),
            attention_mask=mask.repeat_interleave(width, 0),
            decoder_input_ids=sequences.flatten(0, 1),
        ).logits[:, -1]
        pairs.append((log_probs, logits.log_softmax(-1).view(users, width, VOCAB)))
        parents = torch.randint(width, (users, beams), generator=generator)
        tokens = torch.randint(2, VOCAB, (users, beams, 1), generator=generator)
        kept = sequences.gather(1, parents[:, :, None].expand(-1, -1, sequences.shape[2]))
        sequences = torch.cat([kept, tokens], dim=2)
    return pairs


@pytest.mark.parametrize("name", MODELS)
def test_every_step_equals_transformers(name, histories):
    model = MODELS[name]()
    for ours, theirs in steps_of_both(model, LeanT5(model), *histories):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_bfloat16_is_near_float32(histories):
    model = MODELS["tied"]()
    for ours, theirs in steps_of_both(model, LeanT5(model, torch.bfloat16), *histories):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).abs().max() < 0.15


def test_a_slice_of_the_head_is_a_slice_of_the_whole_vocabulary(histories):
    lean = LeanT5(MODELS["tied"]())
    state = lean.start(*histories)
    start = torch.zeros(6, 1, dtype=torch.int64)
    whole = lean.step(state, start, start, 0, VOCAB).log_probs
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(6, 1))
    assert torch.equal(lean.step(state, start, start, 7, 11).log_probs, whole[:, :, 7:18])


def test_a_step_leaves_the_state_it_was_given(histories):
    lean = LeanT5(MODELS["tied"]())
    state = lean.start(*histories)
    start = torch.zeros(6, 1, dtype=torch.int64)
    once = lean.step(state, start, start, 0, VOCAB).log_probs
    assert torch.equal(lean.step(state, start, start, 0, VOCAB).log_probs, once)


def test_beams_share_the_memory_of_their_user(histories):
    state = LeanT5(MODELS["tied"]()).start(*histories)
    parts = [part for memory in state.memory for part in memory.parts]
    assert len(state.memory) == 2 and {part.shape for part in parts} == {(6, 2, 30, 8)}


def test_later_training_does_not_change_the_snapshot(histories):
    model = MODELS["tied"]()
    lean = LeanT5(model)
    start = torch.zeros(6, 1, dtype=torch.int64)
    before = lean.step(lean.start(*histories), start, start, 0, VOCAB).log_probs
    for weight in model.parameters():
        weight.data.mul_(2)
    after = lean.step(lean.start(*histories), start, start, 0, VOCAB).log_probs
    assert torch.equal(before, after)


def test_another_feed_forward_is_refused():
    with pytest.raises(InputError, match="gated-gelu"):
        LeanT5(random_t5(VOCAB, 0, feed_forward_proj="gated-gelu"))
