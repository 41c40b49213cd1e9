"""Attention to the items of a history: what the networks themselves compute, summed by item."""

import numpy as np
import pytest
import torch

from utgrec.recommender.attention import item_attention
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.histories import HistoryEncoder
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.vocabulary import PAD, Vocabulary

VOCABULARY = Vocabulary(root_size=5, leaf_size=6, code_length=3, domains=("shop",))
CODES = np.array([[a, b, (a + b) % 6] for a in range(5) for b in range(6)], dtype=np.int16)


@pytest.fixture
def encoder():
    return HistoryEncoder("shop", CODES, VOCABULARY, max_items=4)


def t5():
    torch.manual_seed(0)
    sizes = T5Sizes(
        width=16, feed_forward=16, heads=2, head_width=8, encoder_layers=2, decoder_layers=2
    )
    return T5Recommender.create(sizes, VOCABULARY).eval()


def causal():
    torch.manual_seed(0)
    sizes = CausalSizes(width=16, feed_forward=16, heads=2, trunk_layers=2)
    return CausalRecommender(sizes, VOCABULARY).eval()


@pytest.mark.parametrize("network", [t5, causal])
def test_shares_of_every_recommended_item_sum_to_one(network, encoder):
    tokens, mask = encoder.encode([np.array([3, 9, 9, 20, 7, 1])])  # the newest 4 are read
    written = torch.from_numpy(encoder.item_tokens[[0, 11]])
    shares = item_attention(network(), tokens, mask, written)
    assert shares.shape == (2, 4)
    assert (shares > 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("network", [t5, causal])
def test_without_a_history_there_is_nothing_to_attend_to(network, encoder):
    tokens, mask = encoder.encode([np.array([], dtype=np.int64)])
    written = torch.from_numpy(encoder.item_tokens[[0, 11]])
    assert item_attention(network(), tokens, mask, written).shape == (2, 0)
    tokens, mask = encoder.encode([np.array([1])])
    assert item_attention(network(), tokens, mask, written[:0]).shape == (0, 1)


def test_it_is_what_transformers_computes(encoder):
    from transformers import T5ForConditionalGeneration

    model = t5()
    eager = T5ForConditionalGeneration._from_config(model.t5.config, attn_implementation="eager")
    eager.load_state_dict(model.t5.state_dict())
    tokens, mask = encoder.encode([np.array([3, 9, 20])])
    written = torch.from_numpy(encoder.item_tokens[[4, 11]])
    read = torch.cat([torch.full((1, 1), PAD), torch.from_numpy(encoder.item_tokens[[20]])], dim=1)
    out = eager.eval()(
        input_ids=tokens.expand(2, -1),
        attention_mask=mask.expand(2, -1),
        decoder_input_ids=torch.cat([read.expand(2, -1), written[:, :-1]], dim=1),
        output_attentions=True,
    )
    cross = torch.stack(out.cross_attentions)[:, :, :, 3:]  # layers, 2, heads, 3 codes, S
    on_tokens = cross.mean(dim=(0, 2, 3))[:, 1:10]
    by_item = on_tokens.reshape(2, 3, 3).sum(dim=2)
    expected = by_item / by_item.sum(dim=1, keepdim=True)
    torch.testing.assert_close(item_attention(model, tokens, mask, written), expected)
    assert not any(m._forward_pre_hooks for m in model.modules())  # the network is as before


def test_a_planted_preference_is_found(encoder):
    """The decoder-only network can be told by its bias to look at the item two places back."""
    model = causal()
    with torch.no_grad():
        model.nearness.fill_(-20)
        model.nearness[:, 2] = 20
    tokens, mask = encoder.encode([np.array([3, 9, 20, 7])])
    shares = item_attention(model, tokens, mask, torch.from_numpy(encoder.item_tokens[[0]]))
    assert int(shares.argmax()) == 1
    assert shares.max() > 0.99


def test_it_looks_where_the_network_looks(encoder):
    """The last position's shares, times the values, are what the trunk's attention gives."""
    model = causal()
    tokens, mask = encoder.encode([np.array([3, 9, 20])])
    inputs, outputs = [], []
    layer = model.trunk[0]
    hooks = [
        layer.attention.register_forward_hook(lambda m, a, out: inputs.append(out)),
        layer.output.register_forward_pre_hook(lambda m, a: outputs.append(a[0])),
    ]
    del model.trunk[1]
    written = torch.from_numpy(encoder.item_tokens[[0]])
    items = tokens[:, 1:10].view(1, 3, 3)
    model.read(tokens[:, 0], items)
    for hook in hooks:
        hook.remove()
    value = inputs[0].chunk(3, dim=-1)[2][0].view(4, 2, 8)  # positions, heads, width of a head
    mixed = outputs[0][0, -1].view(2, 8)
    shares = torch.stack([torch.linalg.lstsq(value[:, h].T, mixed[h]).solution for h in range(2)])
    expected = shares.mean(dim=0)[1:]
    found = item_attention(model, tokens, mask, written)[0]
    torch.testing.assert_close(found, expected / expected.sum(), atol=1e-4, rtol=1e-3)


def test_other_networks_are_refused(encoder):
    tokens, mask = encoder.encode([np.array([3])])
    with pytest.raises(TypeError, match="no attention is known of a Linear"):
        item_attention(
            torch.nn.Linear(1, 1), tokens, mask, torch.from_numpy(encoder.item_tokens[[0]])
        )
