"""The token that stands for any domain: how it is trained, and how a new domain starts from it.

A domain met for the first time has a token that was never trained. So where several domains are
mixed, a small share of the samples names none of them; the token they carry instead has learned
what holds in all, and a new domain's token starts as its copy. Where there is one domain only, its
token tells nothing apart and has seen every sample: it is what the other is copied from.

Shapes: B samples · S tokens of a history.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from utgrec.recommender.causal import WindowBatch
from utgrec.recommender.prefixes import PrefixBatch
from utgrec.recommender.vocabulary import Vocabulary


def leave_unnamed(
    batches: Callable[[int], PrefixBatch | WindowBatch],
    vocabulary: Vocabulary,
    share: float,
    seed: int,
) -> Callable[[int], PrefixBatch | WindowBatch]:
    """The same batches, in which a share of the samples does not name its domain.

    Which ones follows from the seed and the number of the batch alone.
    """

    def draw(samples: int, number: int) -> Tensor:
        rng = np.random.default_rng([seed, 3, number])
        return torch.from_numpy(rng.random(samples) < share)  # (B,)

    def batch(number: int) -> PrefixBatch | WindowBatch:
        found = batches(number)
        if isinstance(found, WindowBatch):
            chosen = draw(len(found.domains), number)
            return found._replace(domains=found.domains.masked_fill(chosen, vocabulary.any_domain))
        chosen = draw(len(found.tokens), number)
        names = found.tokens >= vocabulary.first_domain  # (B, S)
        unnamed = found.tokens.masked_fill(names & chosen[:, None], vocabulary.any_domain)
        return found._replace(tokens=unnamed)

    return batch


@torch.no_grad()
def copy_token(model: nn.Module, vocabulary: Vocabulary, source: int, target: int) -> None:
    """Make the model read one token as it reads another."""
    # T5 shares one table between its encoder and its decoder; item vectors are no tokens.
    tables = {
        id(module.weight): module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and module.num_embeddings == vocabulary.size
        and not name.startswith("items.")
    }
    (table,) = tables.values()
    table[target] = table[source]
