"""Dropout that costs little on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor


def drop(hidden: Tensor, rate: float) -> Tensor:
    """Dropout of any tensor; nothing happens at rate 0.

    On a CPU one 64-bit draw decides eight entries, as drawing each by itself takes a fifth of a
    training step; the rate is then rounded to a multiple of 1/256.
    """
    if not rate:
        return hidden
    if hidden.device.type != "cpu":
        return F.dropout(hidden, rate)
    words = torch.empty(-(-hidden.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    threshold = max(1, round(256 * rate))
    kept = words.view(torch.uint8)[: hidden.numel()].view_as(hidden) >= threshold
    return hidden * kept.to(hidden.dtype).mul_(256 / (256 - threshold))
