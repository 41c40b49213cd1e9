"""A decoder that begins with the newest item's codes: the same items and scores as transformers."""

import torch

from utgrec.decoding import BeamSearch, CodeTrie, LeanT5, exact_scores
from utgrec.recommender.histories import newest_codes
from utgrec.recommender.t5 import T5Recommender, T5Sizes
from utgrec.recommender.vocabulary import END, PAD, Vocabulary

VOCABULARY = Vocabulary(root_size=4, leaf_size=5, code_length=3, domains=("shop",))
CODES = torch.cartesian_prod(torch.arange(4), torch.arange(5), torch.arange(5))[::3]


def model_and_histories() -> tuple[T5Recommender, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    sizes = T5Sizes(width=16, feed_forward=32, heads=2, head_width=8)
    model = T5Recommender.create(sizes, VOCABULARY).eval()
    with torch.no_grad():
        for parameter in model.t5.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    items = VOCABULARY.to_tokens(CODES)
    rows = [
        torch.cat([torch.tensor([VOCABULARY.domain_token("shop")]), *chosen, torch.tensor([END])])
        for chosen in ([], [items[3]], [items[5], items[0]], [items[1], items[2], items[7]])
    ]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    return model, tokens, (tokens != PAD).long()


def test_the_newest_codes_are_those_before_the_end() -> None:
    _, tokens, mask = model_and_histories()
    found = newest_codes(tokens, mask, 3)
    items = VOCABULARY.to_tokens(CODES)
    assert found[0].tolist() == [PAD] * 3
    assert found[1:].tolist() == [items[3].tolist(), items[0].tolist(), items[7].tolist()]


def test_full_beam_equals_the_exact_scorer() -> None:
    model, tokens, mask = model_and_histories()
    search = BeamSearch(LeanT5(model.t5, prompt=3), VOCABULARY, CodeTrie.build(CODES))
    hits = search.search(tokens, mask, k=len(CODES), beam=len(CODES))
    exact = exact_scores(model.t5, VOCABULARY, tokens, mask, CODES, prompt=3)
    torch.testing.assert_close(hits.scores, exact.gather(1, hits.items), atol=1e-4, rtol=0)
    assert (hits.scores.diff(dim=1) <= 1e-6).all()
    without = exact_scores(model.t5, VOCABULARY, tokens, mask, CODES)
    assert not torch.allclose(exact, without, atol=1e-2)  # the prompt matters


def test_beam_equals_transformers_generate() -> None:
    model, tokens, mask = model_and_histories()
    children: dict[tuple[int, ...], set[int]] = {}
    for item in VOCABULARY.to_tokens(CODES).tolist():
        for place in range(3):
            children.setdefault(tuple(item[:place]), set()).add(item[place])
    search = BeamSearch(LeanT5(model.t5, prompt=3), VOCABULARY, CodeTrie.build(CODES))
    for row in range(len(tokens)):
        used = int(mask[row].sum())
        history, seen = tokens[row : row + 1, :used], mask[row : row + 1, :used]
        begin = torch.cat([torch.tensor([[PAD]]), newest_codes(history, seen, 3)], dim=1)
        generated = model.t5.generate(
            history,
            attention_mask=seen,
            decoder_input_ids=begin,
            max_new_tokens=3,
            min_new_tokens=3,
            num_beams=6,
            num_return_sequences=6,
            prefix_allowed_tokens_fn=lambda _, ids: sorted(children[tuple(ids[4:].tolist())]),
            eos_token_id=None,
            pad_token_id=PAD,
            length_penalty=0.0,
        )
        theirs = [tuple(ids) for ids in generated[:, 4:].tolist()]
        ours = search.search(history, seen, k=6, beam=6).items[0]
        assert [tuple(ids) for ids in VOCABULARY.to_tokens(CODES[ours]).tolist()] == theirs
