"""Open a model of transformers for reading items: its family, its weights, its processors."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from utgrec import storage
from utgrec.errors import CorruptFile
from utgrec.tokenizer.backbone_config import MachineSettings, PretrainedBackboneConfig
from utgrec.tokenizer.families.family import Family
from utgrec.tokenizer.families.find import find_family
from utgrec.tokenizer.families.qwen_vl import QwenVL
from utgrec.tokenizer.liger import use_liger


def load_model(folder: Path, dtype: torch.dtype, attention: str) -> tuple[type[Family], Any]:
    """A model without its head, and its family.

    Args:
        attention: what transformers calls it; "" for what suits.

    Raises:
        CorruptFile: the weights are not those of the architecture that `config.json` names.
        BadConfig: a kind of model that cannot read items.
    """
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError, OSError) as error:
        raise CorruptFile(
            f"{folder / 'config.json'} describes no model that transformers knows "
            f"({_first_line(error)}); check the folder, or update transformers"
        ) from error
    family, config = find_family(config)
    # On a CPU the backward pass of torch's fused attention is six times slower than plain
    # matrix products (32 against 5 ms at B 128, S 52, 4 heads of 32, bf16, two cores).
    usual = "sdpa" if torch.cuda.is_available() else "eager"
    try:
        model, loaded = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention or usual,
            use_safetensors=True,
            output_loading_info=True,
        )
    except RuntimeError as error:  # shapes that do not fit
        raise CorruptFile(
            f"the weights in {folder} do not fit its config.json ({_first_line(error)}); "
            "they are those of another model"
        ) from error
    # Encoders are often kept without the pooler, which nothing here reads.
    missing = sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler."))
    if missing or loaded["mismatched_keys"]:
        raise CorruptFile(
            f"the weights in {folder} are not those of its config.json: {len(missing)} of its "
            f"weights are missing, among them {', '.join(missing[:3])}; they belong to another "
            "architecture, or were saved only in part"
        )
    return family, model


def load_processors(
    folder: Path, family: type[Family], settings: PretrainedBackboneConfig | None
) -> tuple[Any, Any]:
    """The text tokenizer and the picture processor of a model's folder."""
    from transformers import AutoTokenizer

    words = pictures = None
    try:
        if family.reads_words:
            words = AutoTokenizer.from_pretrained(folder)
        if family.reads_pictures:
            size = {}
            if settings is not None and issubclass(family, QwenVL):
                size["size"] = {
                    "shortest_edge": settings.min_pixels,
                    "longest_edge": settings.max_pixels,
                }
            pictures = _picture_processor(folder, size)
    except (ValueError, OSError, ImportError) as error:
        raise CorruptFile(
            f"{folder} has no text tokenizer or picture processor that can be used "
            f"({_first_line(error)}); fetch the model again, with all its files"
        ) from error
    return words, pictures


def _picture_processor(folder: Path, size: dict[str, Any]) -> Any:
    """A model's picture processor, as it is with Pillow alone.

    Pillow and torchvision resize differently, and codes must not depend on what is installed.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(folder, backend="pil", **size)
    except ImportError:
        # Releases before 5.20 ask for torchvision here even if the processor does without.
        name = str(storage.read_json(folder / "preprocessor_config.json")["image_processor_type"])
        name = name.removesuffix("Fast").removesuffix("Pil") + "Pil"
        module = import_module(getattr(import_module("transformers"), name).__module__)
        return getattr(module, name).from_pretrained(folder, **size)


def speed_up(language_model: Any, machine: MachineSettings) -> None:
    """What is optional and changes speed or memory alone."""
    if machine.liger:
        use_liger(language_model)
    if machine.checkpointing:
        # Renamed in transformers 5.2x; the older name warns there.
        enable = getattr(language_model, "activation_checkpointing_enable", None)
        (enable or language_model.gradient_checkpointing_enable)({"use_reentrant": False})
    if machine.compile:
        language_model.compile(dynamic=True)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
