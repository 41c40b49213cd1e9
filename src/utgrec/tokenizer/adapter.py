"""LoRA through PEFT: small trained matrices beside the frozen ones of the language model.

The adapter's folder is PEFT's own, so `PeftModel.from_pretrained(base, folder)` opens it, too.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from utgrec.config import require
from utgrec.errors import CorruptFile
from utgrec.tokenizer.backbone_config import LoraSettings
from utgrec.tokenizer.families.family import Family

FILES = ("adapter_config.json", "adapter_model.safetensors")


def add_adapter(family: Family, settings: LoraSettings, base: str) -> Any:
    """Put new adapters on the language model; returns PEFT's view of the whole model.

    Args:
        base: name of the base model, which the adapter's folder will tell.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_pattern(family, settings.targets),
        bias="none",
        base_model_name_or_path=base,
    )
    # Adapters are float32 whatever the base is; their small updates would drown in bfloat16.
    with _quiet():
        view = get_peft_model(family.model, config, autocast_adapter_dtype=True)
    view.peft_config["default"].base_model_name_or_path = base
    return view


def open_adapter(family: Family, folder: Path, *, trained: bool) -> Any:
    """Put the adapters of a folder on the language model.

    Raises:
        CorruptFile: the folder is not whole, or its adapter is for another model.
    """
    from peft import PeftModel

    for name in FILES:
        if not (folder / name).is_file():
            raise CorruptFile(f"{folder / name} is missing; make this tokenizer again")
    try:
        with _quiet():
            return PeftModel.from_pretrained(family.model, folder, is_trainable=trained)
    except (ValueError, RuntimeError, KeyError) as error:
        raise CorruptFile(
            f"the adapter in {folder} does not fit the model ({str(error).splitlines()[0]}); "
            "give the base model that it was trained on"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PEFT reads an attribute that newer releases of transformers warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def save_adapter(view: Any, folder: Path) -> None:
    """Write the adapter alone: neither base weights nor embedding matrices."""
    view.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in; ours is a level above


def target_pattern(family: Family, targets: tuple[str, ...]) -> str:
    """A pattern that matches the full names of the Linear layers to adapt, and no others.

    Raises:
        BadConfig: a target that no Linear layer of the language model is called.
    """
    language, outside = family.language_model, set()
    for part in family.frozen:
        outside |= set(part.modules())
    names = {module: name for name, module in family.model.named_modules()}
    linear = [
        names[module]
        for module in language.modules()
        if isinstance(module, nn.Linear) and module not in outside
    ]
    last = sorted({name.rpartition(".")[2] for name in linear})
    unknown = sorted(set(targets) - set(last))
    require(
        not unknown,
        f"no Linear layer of the language model is called {', '.join(unknown)}; "
        f"there are {', '.join(last)}",
    )
    prefix = names[language]
    head = re.escape(prefix) + r"\." if prefix else ""
    excluded = "".join(
        rf"(?!{re.escape(names[part])}\.)" for part in family.frozen if not prefix and part in names
    )
    return rf"^{excluded}{head}(.*\.)?({'|'.join(map(re.escape, targets or last))})$"
