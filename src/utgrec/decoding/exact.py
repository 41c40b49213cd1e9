"""Score every item of a catalogue, one by one: slow, simple, and right by construction.

It shares no code with beam search and runs transformers' own forward pass, so it is the oracle of
the tests, and usable for catalogues of a few thousand items.

Shapes: B users · S history tokens · N items · L codes · n items of one chunk · V token ids.
"""

from typing import Any

import torch
from torch import Tensor

from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.histories import newest_codes
from utgrec.recommender.vocabulary import PAD, Vocabulary


@torch.no_grad()
def exact_scores(
    model: Any,
    vocabulary: Vocabulary,
    input_ids: Tensor,
    attention_mask: Tensor,
    codes: Tensor,
    *,
    chunk: int = 1024,
    prompt: int = 0,
) -> Tensor:
    """Log-probability of every item for every user. Shape: (B, N), float32.

    The time grows with B × N. `chunk` items are scored at once. After the start token the decoder
    reads the last `prompt` codes of the history before it writes.

    Shapes: `model` a transformers `T5ForConditionalGeneration` in evaluation mode; input_ids
        (B, S); attention_mask (B, S), 1 = a token; codes (N, L), counted within their codebooks.

    Raises:
        InputError: a code outside its codebook.
    """
    from transformers.modeling_outputs import BaseModelOutput

    tokens = vocabulary.to_tokens(codes)  # (N, L)
    newest = newest_codes(input_ids, attention_mask, prompt)  # (B, prompt)
    memory = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)[0]  # (B, S, M)
    scores = torch.empty(len(input_ids), len(tokens), device=memory.device)
    for user in range(len(input_ids)):
        for first in range(0, len(tokens), chunk):
            targets = tokens[first : first + chunk]  # (n, L)
            begin = torch.full_like(targets[:, :1], PAD)
            output = model(
                encoder_outputs=BaseModelOutput(memory[user].expand(len(targets), -1, -1)),
                attention_mask=attention_mask[user].expand(len(targets), -1),
                decoder_input_ids=torch.cat(
                    [begin, newest[user].expand(len(targets), -1), targets[:, :-1]], dim=1
                ),
            )
            log_probs = output.logits[:, prompt:].float().log_softmax(dim=-1)  # (n, L, V)
            chosen = log_probs.gather(2, targets[:, :, None]).squeeze(2)  # (n, L)
            scores[user, first : first + chunk] = chosen.sum(dim=1)
    return scores


@torch.no_grad()
def exact_causal_scores(
    model: CausalRecommender,
    vocabulary: Vocabulary,
    input_ids: Tensor,
    attention_mask: Tensor,
    codes: Tensor,
) -> Tensor:
    """`exact_scores` for the decoder-only recommender. Shape: (B, N), float32."""
    tokens = vocabulary.to_tokens(codes)  # (N, L)
    length = tokens.shape[1]
    scores = torch.empty(len(input_ids), len(tokens), device=input_ids.device)
    for user, (row, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
        # One history at a time and without padding: domain, codes of the items, end.
        history = row[mask.bool()]
        items = history[None, 1:-1].view(1, -1, length)
        state = model.read(history[:1], items)[0, -1:]  # (1, M)
        written = model.write(state.expand(len(tokens), -1), tokens[:, :-1])  # (N, L, M)
        log_probs = model.head(written).float().log_softmax(dim=-1)
        scores[user] = log_probs.gather(2, tokens[:, :, None]).squeeze(2).sum(dim=1)
    return scores
