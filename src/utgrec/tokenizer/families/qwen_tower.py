"""The vision tower of Qwen2-VL over many pictures at once.

The model's own forward pass attends to one picture after the other and reads every picture twice,
as a film of two equal frames. Here pictures of one shape are attended to together, and in float32
both frames meet the sum of their filters. Its parts are called by the names they have in
transformers; nothing is changed in them.

Shapes: N patches · n pictures of one shape · S patches of a picture · P = 3·patch² · W width.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from utgrec.tokenizer.families.places import turn


def see(tower: Any, patches: Tensor, grids: npt.NDArray[np.int64]) -> Tensor:
    """Merged features of pictures, one after the other.

    Shapes: patches (N, P), grids (pictures, 2), height and width in patches → (N / merge², H).
    """
    merge = int(tower.spatial_merge_size)
    shapes, kind = np.unique(grids, axis=0, return_inverse=True)
    kind, sizes = kind.reshape(-1), grids.prod(axis=1)
    start = np.cumsum(sizes) - sizes
    groups = [
        torch.from_numpy(start[kind == one][:, None] + np.arange(shape.prod())).to(patches.device)
        for one, shape in enumerate(shapes)
    ]  # (n, S) each: the rows of pictures of one shape
    orders = [_block_order(int(shape[0]), int(shape[1]), merge) for shape in shapes]
    places = torch.from_numpy(np.concatenate([orders[one] for one in kind]))  # (N, 2)
    hidden = _embed(tower.patch_embed, patches)  # (N, W)
    rotary = tuple(
        part.float()[:, None] for part in tower.rotary_pos_emb(hidden, places.to(patches.device))
    )  # (N, 1, d)
    for block in tower.blocks:
        hidden = hidden + _attend(block.attn, block.norm1(hidden), rotary, groups)
        hidden = hidden + block.mlp(block.norm2(hidden))
    out: Tensor = tower.merger(hidden)
    return out


def twice(patches: Tensor, frames: int) -> Tensor:
    """Patches as the model's own tower takes them: every frame. Shapes: (N, P) → (N, frames·P)."""
    return patches.view(len(patches), 3, 1, -1).expand(-1, -1, frames, -1).flatten(1)


def _embed(layer: Any, patches: Tensor) -> Tensor:
    """Shapes: (N, P) → (N, W)."""
    weight = layer.proj.weight  # (W, 3, frames, patch, patch)
    if weight.dtype == torch.float32:
        return F.linear(patches, weight.sum(dim=2).flatten(1), layer.proj.bias)
    # The sum of two filters would be rounded once more.
    out: Tensor = layer(twice(patches, weight.shape[2]))
    return out


def _attend(layer: Any, hidden: Tensor, rotary: tuple[Tensor, ...], groups: list[Tensor]) -> Tensor:
    """Every patch looks at those of its picture: (N, W) → (N, W)."""
    query, key, value = layer.qkv(hidden).unflatten(-1, (3, layer.num_heads, -1)).unbind(1)
    query = turn(query.float(), *rotary).to(value.dtype)  # (N, heads, d)
    key = turn(key.float(), *rotary).to(value.dtype)
    mixed = torch.empty_like(query)
    for rows in groups:
        seen = F.scaled_dot_product_attention(
            query[rows].transpose(1, 2),  # (n, heads, S, d)
            key[rows].transpose(1, 2),
            value[rows].transpose(1, 2),
            scale=layer.scaling,
        )
        mixed[rows] = seen.transpose(1, 2)
    out: Tensor = layer.proj(mixed.flatten(1))
    return out


def _block_order(height: int, width: int, merge: int) -> npt.NDArray[np.int64]:
    """Row and column of a picture's patches, in the order in which they are merged: (S, 2)."""
    rows, columns = np.divmod(np.arange(height * width), width)
    blocks = (height // merge, merge, width // merge, merge)
    return np.stack(
        [part.reshape(blocks).swapaxes(1, 2).reshape(-1) for part in (rows, columns)], axis=1
    )
