"""A quantiser without a tree: one codebook for all positions, and the same laws."""

import pytest
import torch
from small_items import small_config, write_small_domain
from small_quantizer import KINDS, draw, make, train_step

from utgrec.catalog import Domain
from utgrec.errors import BadConfig
from utgrec.regimes import without
from utgrec.tokenizer.codes import assign_domain
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.train import train_tokenizer


def flat(kind: str = "simvq", **settings):
    """Seven entries for all positions."""
    return make(kind, tree=False, root_size=7, leaf_size=7, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_all_positions_share_it(kind):
    quantizer = flat(kind).eval()
    assert quantizer.root is quantizer.leaf
    codes = torch.tensor([[3, 3, 3]])
    vectors = quantizer.embed(codes)[0]
    assert torch.equal(vectors[0], vectors[1]) and torch.equal(vectors[1], vectors[2])
    alone = sum(p.numel() for p in make(kind, root_size=7, leaf_size=7).parameters())
    assert 2 * sum(p.numel() for p in quantizer.parameters()) == alone


@pytest.mark.parametrize("kind", KINDS)
def test_codes_alone_rebuild_the_states(kind):
    quantizer = flat(kind).eval()
    out = quantizer(draw())
    torch.testing.assert_close(quantizer.embed(out.codes).cumsum(dim=1), out.states)


def test_it_is_placed_on_the_steps_of_all_positions():
    """Each of three positions asks for its own two vectors; one codebook has to hold all six."""
    quantizer = make("vq", tree=False, root_size=16, leaf_size=16, warmup_steps=1).train()
    wanted = 50 * torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(2))
    choice = torch.randint(2, (60, 3), generator=torch.Generator().manual_seed(3))
    states = wanted[torch.arange(3), choice].cumsum(dim=1)  # (60, 3, 4)
    train_step(quantizer, states)
    torch.manual_seed(0)
    quantizer.prepare_step()
    gaps = torch.cdist(wanted.flatten(0, 1), quantizer.root.vectors.detach()).amin(dim=1)
    assert float(gaps.max()) < 1  # two wanted vectors are some hundred apart


def test_a_code_that_any_position_chooses_is_alive():
    quantizer = flat("vq", revive_every=1).train()
    codes = torch.tensor([[0, 1, 2], [0, 3, 4], [0, 5, 6]])
    far = 1000.0 * torch.eye(7)[:, :4] + torch.arange(7.0)[:, None]
    quantizer.root.place(far)
    states = quantizer.embed(codes).cumsum(dim=1).detach()
    before = quantizer.root.vectors.detach().clone()
    assert torch.equal(quantizer.nearest(states), codes)
    for _ in range(3):
        train_step(quantizer, states)
    assert torch.equal(quantizer.root.vectors, before)


def test_sizes_must_be_equal():
    with pytest.raises(BadConfig, match="must be equal, got 5 and 7"):
        QuantizerConfig(tree=False, root_size=5, leaf_size=7)


def test_a_tokenizer_without_a_tree_opens_again(tmp_path):
    histories = [[0, 1, 3, 2, 7], [4, 6, 0], [3, 2, 7], [1, 0, 4, 6], [4, 1]]
    domain = Domain.open(write_small_domain(tmp_path / "shop", histories))
    config = without(small_config(), ["tree"])
    train_tokenizer([domain], config, tmp_path / "tokenizer")
    quantizer = ItemTokenizer.from_pretrained(tmp_path / "tokenizer").model.quantizer
    assert quantizer.root is quantizer.leaf
    made = assign_domain(tmp_path / "tokenizer", domain, tmp_path / "codes")
    assert made.facts["sizes"] == [6, 6, 6]
