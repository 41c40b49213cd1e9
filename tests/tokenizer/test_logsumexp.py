"""Chunks change neither the value nor the gradient."""

import pytest
import torch

from utgrec.tokenizer import logsumexp


@pytest.mark.parametrize("rows", [1, 7, 256, 600])
def test_value_and_gradients_equal_those_of_whole_logits(rows: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(rows, 8, dtype=torch.float64, requires_grad=True)
    embeddings = torch.randn(11, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(rows)
    total = logsumexp.chunked_logsumexp(hidden, embeddings)
    (total * weights).sum().backward()
    found = hidden.grad.clone(), embeddings.grad.clone()
    hidden.grad = embeddings.grad = None
    whole = torch.logsumexp(hidden @ embeddings.T, dim=-1)
    (whole * weights).sum().backward()
    torch.testing.assert_close(total.double(), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0], hidden.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], embeddings.grad, atol=1e-4, rtol=0)


def test_no_rows_give_no_totals() -> None:
    hidden = torch.zeros(0, 8, requires_grad=True)
    total = logsumexp.chunked_logsumexp(hidden, torch.zeros(11, 8, requires_grad=True))
    assert total.shape == (0,)
    total.sum().backward()
