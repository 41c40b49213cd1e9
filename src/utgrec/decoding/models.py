"""The beam model of each recommender network."""

import torch

from utgrec.decoding.causal import LeanCausal
from utgrec.decoding.t5 import LeanT5
from utgrec.recommender.causal import CausalRecommender
from utgrec.recommender.model import GenerativeRecommender
from utgrec.recommender.t5 import T5Recommender


def make_beam_model(
    model: GenerativeRecommender, code_length: int, dtype: torch.dtype = torch.float32
) -> LeanCausal | LeanT5:
    """A snapshot of a network's weights that beam search can use.

    Raises:
        TypeError: a network that has no beam model.
    """
    if isinstance(model, CausalRecommender):
        return LeanCausal(model, dtype)
    if isinstance(model, T5Recommender):
        return LeanT5(model.t5, dtype, prompt=code_length)
    raise TypeError(f"{type(model).__name__} has no beam model; add one in decoding/models.py")
