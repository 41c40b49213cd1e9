"""Tiny models of every family with random weights, made from their configuration classes.

Weights come from a generator and the weights' names alone, so they are the same for every release
of transformers.
"""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn

WIDTH = 32
SPECIAL = [
    "<|endoftext|>",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "[CLS]",
    "[SEP]",
    "[UNK]",
]
VOCABULARY = 300
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
MARKS = {
    "image_token_id": 2,
    "video_token_id": 4,
    "vision_start_token_id": 1,
    "vision_end_token_id": 3,
}


def qwen2_vl() -> Any:
    from transformers import Qwen2VLConfig

    vision = {"depth": 1, "embed_dim": 32, "hidden_size": WIDTH, "mlp_ratio": 2, "num_heads": 2}
    text = {**TEXT, "rope_parameters": MROPE}
    return Qwen2VLConfig(text_config=text, vision_config=vision, **MARKS)


def qwen2_5_vl() -> Any:
    from transformers import Qwen2_5_VLConfig

    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_heads": 2,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    text = {**TEXT, "rope_parameters": MROPE}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **MARKS)


def qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig

    vision = {
        "depth": 3,
        "hidden_size": 32,
        "out_hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_heads": 2,
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 16,
        "patch_size": 16,
    }
    # One layer more than get features of the vision tower: queries must see those of the last.
    text = {**TEXT, "num_hidden_layers": 3, "rope_parameters": MROPE}
    return Qwen3VLConfig(text_config=text, vision_config=vision, **MARKS)


def _idefics(config_class: Any) -> Any:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    return config_class(
        text_config={"model_type": "llama", **TEXT},
        vision_config=vision,
        image_token_id=5,
        scale_factor=2,
        pad_token_id=0,
    )


def smolvlm() -> Any:
    from transformers import SmolVLMConfig

    return _idefics(SmolVLMConfig)


def idefics3() -> Any:
    from transformers import Idefics3Config

    return _idefics(Idefics3Config)


def qwen3() -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**TEXT)


def bert() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        pad_token_id=0,
    )


def siglip() -> Any:
    from transformers import SiglipConfig

    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return SiglipConfig(
        text_config={**sizes, "vocab_size": 40},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
    )


def clip_vision() -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )


def vit() -> Any:
    from transformers import ViTConfig

    return ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "smolvlm": smolvlm,
    "idefics3": idefics3,
    "qwen3": qwen3,
    "bert": bert,
    "siglip": siglip,
    "clip_vision": clip_vision,
    "vit": vit,
}
QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
MULTIMODAL = (*QWEN, "smolvlm", "idefics3")
WORDS = ("qwen3", "bert")
PICTURES = ("siglip", "clip_vision", "vit")
# What a folder of this family needs to hold pictures of at most 12 tokens.
PIXELS = {name: (4 * side**2, 12 * side**2) for name, side in zip(QWEN, (28, 28, 32), strict=True)}


def write_model(folder: Path, name: str) -> Path:
    """A model of a family with its tokenizer and picture processor, as the hub would hold it."""
    from transformers import AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    model = AutoModel.from_config(FAMILIES[name]())
    fill(model)
    model.save_pretrained(folder)
    if name not in PICTURES:
        words(encoder=name == "bert").save_pretrained(folder)
    if name not in WORDS:
        picture_processor(name).save_pretrained(folder)
    return folder


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Random weights that depend on nothing but their names and shapes."""
    for name, value in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            value.copy_(noise * value[0].numel() ** -0.5)
        else:
            value.copy_(0.1 * noise + ("norm" in name.lower() and name.endswith("weight")))


def words(*, encoder: bool) -> Any:
    """A byte-level tokenizer that has the special tokens of all families."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a red cup", "a blue bowl of stone"], trainer)
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]"))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", unk_token="[UNK]"
    )


def picture_processor(name: str) -> Any:
    """The family's picture processor on Pillow."""
    if name in QWEN:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        return Qwen2VLImageProcessorPil(patch_size=16 if name == "qwen3_vl" else 14)
    if name in ("smolvlm", "idefics3"):
        from transformers.models.idefics3.image_processing_pil_idefics3 import (
            Idefics3ImageProcessorPil,
        )
        from transformers.models.smolvlm.image_processing_pil_smolvlm import (
            SmolVLMImageProcessorPil,
        )

        kind = SmolVLMImageProcessorPil if name == "smolvlm" else Idefics3ImageProcessorPil
        return kind(size={"longest_edge": 32}, max_image_size={"longest_edge": 32})
    square = {"height": 32, "width": 32}
    if name == "siglip":
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        return SiglipImageProcessorPil(size=square)
    if name == "vit":
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        return ViTImageProcessorPil(size=square)
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square)
