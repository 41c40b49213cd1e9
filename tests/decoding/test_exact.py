"""The oracle itself, against one item at a time and against what probabilities must obey."""

import pytest
import torch
from tiny_shops import make_shop

from utgrec.decoding import exact_scores
from utgrec.errors import InputError


def test_a_score_is_minus_the_loss_of_the_items_tokens():
    shop = make_shop(items=5)
    tokens = shop.vocabulary.to_tokens(shop.codes)
    scores = shop.exact()
    for user in range(5):
        length = int(shop.mask[user].sum())
        for item in range(5):
            loss = shop.model(
                input_ids=shop.input_ids[user : user + 1, :length], labels=tokens[item : item + 1]
            ).loss
            torch.testing.assert_close(scores[user, item], -loss.detach() * 3, atol=1e-4, rtol=0)


def test_all_possible_items_have_a_total_probability_below_one():
    shop = make_shop(items=6 * 8 * 8)
    total = shop.exact().exp().sum(dim=1)
    assert ((total > 0) & (total < 1)).all()


def test_chunks_do_not_change_scores():
    shop = make_shop()
    arguments = (shop.model, shop.vocabulary, shop.input_ids, shop.mask, shop.codes)
    torch.testing.assert_close(exact_scores(*arguments, chunk=7), shop.exact())


def test_codes_of_another_tokenizer_are_refused():
    shop = make_shop()
    with pytest.raises(InputError, match="another tokenizer"):
        exact_scores(shop.model, shop.vocabulary, shop.input_ids, shop.mask, shop.codes + 5)
