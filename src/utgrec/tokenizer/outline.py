"""A backbone without its weights: enough to count parameters and tokens before anything starts."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from utgrec.catalog import Catalog
from utgrec.errors import MissingStage
from utgrec.tokenizer.adapter import target_pattern
from utgrec.tokenizer.backbone import token_ids
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.backbone_loading import load_processors
from utgrec.tokenizer.backbone_source import find_source
from utgrec.tokenizer.families.family import Family
from utgrec.tokenizer.families.find import find_family
from utgrec.tokenizer.families.qwen_vl import QwenVL
from utgrec.tokenizer.settings import TokenizerConfig
from utgrec.tokenizer.tiny import TinyBackboneConfig, tiny_model_config, tiny_processors

NO_WORDS = np.zeros(0, dtype=np.int64)


class Counted(NamedTuple):
    """Means over some items."""

    words: float  # text tokens, cut where the tokenizer cuts them
    picture: float  # tokens of a picture, of those that have one
    frame: float  # instruction and marks


def outline(config: TokenizerConfig, texts: Sequence[str]) -> Family | None:
    """The family of a configuration's backbone on torch's meta device, where weights take no room.

    Of a model on the hub, all files but the weights are fetched.

    Args:
        texts: what the vocabulary of the embedded backbone is trained on.

    Returns:
        None if the model is not to be had.
    """
    from transformers import AutoConfig, AutoModel, Qwen2VLModel

    settings = config.backbone
    if isinstance(settings, TinyBackboneConfig):
        words, pictures = tiny_processors(texts, settings)
        with torch.device("meta"):
            own = Qwen2VLModel(tiny_model_config(words, settings))
        return QwenVL(own, words, pictures)
    try:
        folder = find_source(settings.name, settings.revision, weights=False).folder
    except MissingStage:
        return None
    kind, model_config = find_family(AutoConfig.from_pretrained(folder))
    words, pictures = load_processors(folder, kind, settings)
    with torch.device("meta"):
        model: Any = AutoModel.from_config(model_config)
        return kind(model, words, pictures)


def frozen_parameters(family: Family, config: TokenizerConfig) -> int:
    """Parameters of the backbone that stay as they are."""
    if isinstance(config.backbone, PretrainedBackboneConfig):
        return _count(family.model)
    return sum(_count(part) for part in family.frozen)


def trained_parameters(family: Family, config: TokenizerConfig) -> int:
    """Parameters in the backbone that gradients move: adapters, or a small model of our own."""
    settings = config.backbone
    if not isinstance(settings, PretrainedBackboneConfig):
        return _count(family.model) - frozen_parameters(family, config)
    layers = _count(family.trained) if family.trained is not None else 0
    if settings.lora is None or not family.reads_words:
        return layers
    adapted = re.compile(target_pattern(family, settings.lora.targets))
    return layers + sum(
        settings.lora.rank * (layer.in_features + layer.out_features)
        for name, layer in family.model.named_modules()
        if isinstance(layer, nn.Linear) and adapted.match(name)
    )


def count_tokens(
    family: Family, config: TokenizerConfig, catalogs: Sequence[Catalog], rows: Sequence[Any]
) -> Counted:
    """Tokens of some items, by what the text tokenizer and pictures' sizes say.

    Args:
        rows: for each catalogue, those of its items to look at.
    """
    settings = config.backbone
    reads = not isinstance(settings, PretrainedBackboneConfig) or settings.pictures
    words, pictures, frames = [], [], []
    frame = {
        shown: len(family.layout(NO_WORDS, (int(shown), int(shown))).tokens) - int(shown)
        for shown in ((False, True) if family.reads_pictures else (False,))
    }
    for catalog, chosen in zip(catalogs, rows, strict=True):
        found = token_ids(family, [catalog.texts[row] for row in chosen])
        words += [min(config.heads.max_text_tokens, len(ids)) for ids in found]
        for row in chosen:
            path = catalog.images[row]
            tokens = 0
            if path is not None and reads and family.reads_pictures:
                try:
                    with Image.open(path) as image:
                        tokens = family.count_tokens(image.height, image.width)
                except (OSError, ValueError):
                    pass  # not readable: the item will go by its words
            frames.append(frame[tokens > 0])
            if tokens:
                pictures.append(tokens)
    return Counted(
        *(float(np.mean(found)) if found else 0.0 for found in (words, pictures, frames))
    )


def _count(part: nn.Module) -> int:
    return sum(value.numel() for value in part.parameters())
