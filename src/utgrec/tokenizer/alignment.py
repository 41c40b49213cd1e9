"""Pull items together that people take one after the other (paper §3.3, co-occurrence alignment).

Shapes: B items of a batch · L codes per item · D code dimension.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment_loss(
    states: Tensor, partner: Tensor, false_negatives: Tensor, temperature: float = 0.1
) -> Tensor:
    """InfoNCE between the state of an item and that of its partner, position by position.

    Args:
        states: (B, L, D), projected states before quantisation.
        partner: (B,), row of each item's positive; -1 takes no part as an anchor.
        false_negatives: (B, B) bool; true where column is a known neighbour of the row's item.
            The row itself and its partner need not be marked.
        temperature: divides the cosine similarities.

    Returns:
        Mean over anchors and positions; exactly 0 where no item has a partner.
    """
    anchors = torch.nonzero(partner >= 0).squeeze(1)  # (A,)
    if len(anchors) == 0:
        return states.sum() * 0.0
    unit = F.normalize(states.float(), dim=-1).transpose(0, 1)  # (L, B, D)
    similarity = unit[:, anchors] @ unit.transpose(1, 2) / temperature  # (L, A, B)
    positive = partner[anchors]  # (A,)
    rows = torch.arange(len(anchors), device=states.device)
    hidden = false_negatives[anchors].clone()  # (A, B)
    hidden[rows, anchors] = True
    hidden[rows, positive] = False
    similarity = similarity.masked_fill(hidden, -torch.inf)
    length = similarity.shape[0]
    return F.cross_entropy(similarity.flatten(0, 1), positive.repeat(length))
