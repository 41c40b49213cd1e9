"""The training forward pass equals transformers' own, values and gradients."""

import pytest
import torch

from utgrec.recommender.dropout import drop
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.t5_forward import t5_logits
from utgrec.recommender.vocabulary import PAD, Vocabulary


@pytest.mark.parametrize("padded", [False, True])
def test_equals_transformers(padded: bool) -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("shop",))
    sizes = T5Sizes(width=16, feed_forward=32, heads=2, head_width=8, dropout=0.0)
    t5 = T5Recommender.create(sizes, vocabulary).t5
    with torch.no_grad():  # norms and biases start equal; make every weight matter
        for parameter in t5.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tokens = torch.randint(2, vocabulary.size, (4, 11))
    mask = torch.ones_like(tokens)
    if padded:
        for row, length in enumerate((11, 8, 5, 2)):
            tokens[row, length:], mask[row, length:] = PAD, 0
    written = torch.randint(2, vocabulary.size, (4, 3))
    written[:, 0] = PAD

    def gradients(logits: torch.Tensor) -> list[torch.Tensor]:
        t5.zero_grad()
        logits.square().sum().backward()
        return [parameter.grad.clone() for parameter in t5.parameters()]

    ours = t5_logits(t5, tokens, mask, written)
    theirs = t5(input_ids=tokens, attention_mask=mask, decoder_input_ids=written).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary(root_size=8, leaf_size=16, code_length=3, domains=("shop",))
    t5 = T5Recommender.create(
        T5Sizes(width=16, feed_forward=32, heads=2, head_width=8, dropout=0.5), vocabulary
    ).t5
    tokens = torch.randint(2, vocabulary.size, (2, 5))
    written = torch.full((2, 3), PAD)
    mask = torch.ones_like(tokens)
    t5.eval()
    torch.testing.assert_close(
        t5_logits(t5, tokens, mask, written), t5_logits(t5, tokens, mask, written)
    )
    t5.train()
    first, second = (t5_logits(t5, tokens, mask, written) for _ in range(2))
    assert not torch.allclose(first, second)


def test_dropout_keeps_the_mean_and_drops_the_stated_share() -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(1001, 999), 0.25)
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.005
    assert abs(float(dropped.mean()) - 1.0) < 0.005
    by_column = (dropped == 0).float().mean(dim=0)
    assert float(by_column.min()) > 0.15  # no byte of a drawn word is special
