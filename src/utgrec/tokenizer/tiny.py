"""The embedded backbone: Qwen2-VL's architecture at a few million parameters, made on the spot.

It needs no download: the words come from a byte-level BPE trained on the catalogues' own text,
their vectors from a latent semantic analysis of it, the patch embedding from the principal
components of the catalogues' own pictures; all else is random.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import sparse
from torch import Tensor

from utgrec.config import require
from utgrec.tokenizer.backbone import WITH_IMAGE, WITHOUT_IMAGE
from utgrec.tokenizer.spectral import leading_directions

Floats = npt.NDArray[np.float64]

PAD = "<|endoftext|>"
VISION_START, PICTURE, VISION_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
VIDEO = "<|video_pad|>"
LSA_DOCUMENTS = 50_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyBackboneConfig:
    """Sizes of the embedded backbone."""

    vocabulary: int = 4096
    """Entries of the BPE vocabulary, special tokens included."""
    hidden_size: int = 128
    """Width of the language model."""
    layers: int = 4
    """Layers of the language model."""
    heads: int = 4
    """Attention heads of the language model; every two share keys and values."""
    feed_forward: int = 384
    """Width of the gated feed-forward."""
    picture_tokens: int = 12
    """At most so many tokens per picture; each covers 28×28 pixels after resizing."""
    vision_width: int = 96
    """Width of the vision tower, which has one layer."""
    seed: int = 0
    """Seeds the random weights."""

    def __post_init__(self) -> None:
        require(self.vocabulary >= 300, f"vocabulary must be at least 300, got {self.vocabulary}")
        require(
            self.hidden_size % (8 * self.heads) == 0 and self.heads % 2 == 0,
            f"hidden_size must be a multiple of 8 × heads and heads even, got {self}",
        )
        require(self.picture_tokens >= 4, f"picture_tokens is at least 4, got {self}")


def create_tiny_backbone(
    folder: Path,
    texts: Sequence[str],
    pictures: Sequence[Image.Image],
    config: TinyBackboneConfig,
) -> None:
    """Write a tiny Qwen2-VL into `folder`, in transformers' own format.

    Args:
        texts: what the vocabulary is trained on.
        pictures: what the patch embedding is fitted on; a few thousand are plenty, none is fine.
    """
    from transformers import Qwen2VLModel

    words, processor = tiny_processors(texts, config)
    words.save_pretrained(folder)
    processor.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Qwen2VLModel(tiny_model_config(words, config))
    if pictures:
        patches = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        weight = model.visual.patch_embed.proj.weight
        with torch.no_grad():
            weight.copy_(_principal_patches(patches, config.vision_width).view_as(weight))
        _centre_pictures(model, processor, pictures)
    ids = words(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    _start_from_topics(model.language_model.embed_tokens.weight, ids)
    model.save_pretrained(folder)


def tiny_processors(texts: Sequence[str], config: TinyBackboneConfig) -> tuple[Any, Any]:
    """The text tokenizer, whose vocabulary is trained on `texts`, and the picture processor."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    side = 28 * 28
    size = {"shortest_edge": 4 * side, "longest_edge": config.picture_tokens * side}
    return _train_words(texts, config.vocabulary), Qwen2VLImageProcessorPil(size=size)


def tiny_model_config(words: Any, config: TinyBackboneConfig) -> Any:
    """The configuration of the model around a text tokenizer."""
    from transformers import Qwen2VLConfig

    head = config.hidden_size // config.heads
    text_config = {
        "vocab_size": len(words),
        "hidden_size": config.hidden_size,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads // 2,
        "max_position_embeddings": 4096,
        "initializer_range": config.hidden_size**-0.5 / 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            # Thirds of the rotary pairs for time, height and width, as near as they divide.
            "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
        },
        "bos_token_id": None,
        "eos_token_id": words.pad_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision_config = {
        "depth": 1,
        "embed_dim": config.vision_width,
        "hidden_size": config.hidden_size,
        "mlp_ratio": 2,
        "num_heads": 4,
        "initializer_range": config.vision_width**-0.5 / 2,
    }
    token = words.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config=text_config,
        vision_config=vision_config,
        image_token_id=token(PICTURE),
        video_token_id=token(VIDEO),
        vision_start_token_id=token(VISION_START),
        vision_end_token_id=token(VISION_END),
    )


@torch.no_grad()
def _centre_pictures(model: Any, processor: Any, pictures: Sequence[Image.Image]) -> None:
    """Take what all pictures share out of the vision tower's output, and match the words' scale.

    Left in, the shared part would say "there is a picture" louder than the picture says anything.
    """
    sample = pictures[:: max(1, len(pictures) // 500)]
    processed = processor(images=list(sample), return_tensors="pt")
    features = model.visual(
        processed["pixel_values"], grid_thw=processed["image_grid_thw"]
    ).pooler_output  # (M, H)
    centred = features - features.mean(dim=0)
    words = model.language_model.embed_tokens.weight.norm(dim=1).mean()
    scale = words / centred.norm(dim=1).mean().clamp(min=1e-9)
    last = model.visual.merger.mlp[-1]
    last.weight.mul_(scale)
    last.bias.copy_((last.bias - features.mean(dim=0)) * scale)


def _train_words(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # The instructions are one token each: a vocabulary of product words would spend dozens on them.
    special = [PAD, VISION_START, PICTURE, VISION_END, VIDEO, WITH_IMAGE, WITHOUT_IMAGE]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD)


def _principal_patches(patches: Tensor, width: int) -> Tensor:
    """Filters whose outputs are the patches' principal components, damped. (n, P) → (width, P).

    Dividing by the fourth root of the variance keeps fine patterns from drowning in brightness.
    """
    sample = patches[:: max(1, len(patches) // 20_000)].double()
    covariance = torch.from_numpy(np.cov(sample.numpy(), rowvar=False))
    variances, vectors = torch.linalg.eigh(covariance)  # ascending
    variances, vectors = variances.flip(0)[:width], vectors.flip(1)[:, :width]
    # An eigenvector's sign is arbitrary; the largest entry is made positive, so runs agree.
    largest = vectors.abs().argmax(dim=0)
    vectors = vectors * vectors[largest, torch.arange(vectors.shape[1])].sign()
    filters: Tensor = (vectors / (variances.clamp(min=0) + 1e-3).pow(0.25)).T.float()
    return filters


def _start_from_topics(embeddings: Tensor, documents: Sequence[Sequence[int]]) -> None:
    """Give tokens that occur in the same items similar vectors: latent semantic analysis.

    From random vectors a few hundred steps do not get past the frequency of words. A vector of
    equal length for all tokens is added, so that the norm at the entrance of each layer leaves
    common tokens quiet and rare ones loud, as tf-idf weighs them. Changes `embeddings` (V, H).
    """
    size, width = embeddings.shape
    sample = documents[:: max(1, -(-len(documents) // LSA_DOCUMENTS))]
    lengths = [len(ids) for ids in sample]
    rank = min(width - 1, len(sample) - 1, size - 1)
    if rank < 1 or not any(lengths):
        return
    columns = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in sample if ids])
    rows = np.repeat(np.arange(len(sample)), lengths)
    counts = sparse.csr_matrix((np.ones(len(columns)), (rows, columns)), (len(sample), size))
    present = np.bincount(counts.indices, minlength=size)  # documents that have the token
    idf = np.log((1 + len(sample)) / (1 + present))
    weighted = counts.multiply(idf).tocsr()
    lengths_l2 = np.sqrt(weighted.multiply(weighted).sum(axis=1)).A1
    weighted = sparse.diags(1 / np.maximum(lengths_l2, 1e-9)) @ weighted
    vectors, strengths = leading_directions(weighted, rank)
    # The root of the strengths: neither all topics equal nor the first one alone.
    topics = vectors * np.sqrt(strengths)  # (V, rank)
    largest = np.abs(topics).argmax(axis=0)
    topics = topics * np.sign(topics[largest, np.arange(rank)])
    topics = topics * idf[:, None]
    norms = np.linalg.norm(topics, axis=1, keepdims=True)
    topics /= max(float(norms[present > 0].mean()), 1e-9)
    with torch.no_grad():
        typical = float(embeddings.norm(dim=1).mean())
        known = torch.from_numpy(np.flatnonzero(present > 0))
        shared = torch.zeros(width)
        shared[-1] = 1.0
        placed = torch.zeros(len(known), width)
        placed[:, :rank] = torch.from_numpy(topics[known.numpy()]).float()
        embeddings[known] = 0.7 * typical * (placed + shared)
