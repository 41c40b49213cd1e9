"""Which family a model belongs to."""

from typing import Any

from utgrec.errors import BadConfig
from utgrec.tokenizer.families.family import Family
from utgrec.tokenizer.families.pictures import PicturesOnly
from utgrec.tokenizer.families.qwen_vl import Qwen3VL, QwenVL
from utgrec.tokenizer.families.smolvlm import SmolVLM
from utgrec.tokenizer.families.words import WordsOnly

FAMILIES: tuple[type[Family], ...] = (QwenVL, Qwen3VL, SmolVLM)
# A tower for words and one for pictures, trained to agree: the pictures' tower is taken.
TWO_TOWERS = ("clip", "siglip", "siglip2")


def find_family(config: Any) -> tuple[type[Family], Any]:
    """The family of a model, and the configuration of that part of it which is used.

    Raises:
        BadConfig: no family reads such a model.
    """
    from transformers import MODEL_MAPPING

    for family in FAMILIES:
        if config.model_type in family.model_types:
            return family, config
    if config.model_type in TWO_TOWERS:
        return PicturesOnly, config.vision_config
    if type(config) in MODEL_MAPPING and not getattr(config, "vision_config", None):
        main_input = MODEL_MAPPING[type(config)].main_input_name
        if main_input == "pixel_values":
            return PicturesOnly, config
        if main_input == "input_ids" and not getattr(config, "is_encoder_decoder", False):
            return WordsOnly, config
    known = [name for family in FAMILIES for name in family.model_types]
    raise BadConfig(
        f"a model of type {config.model_type!r} cannot read items; take one of "
        f"{', '.join(known)}, a text encoder or decoder alone, or a vision encoder"
    )
