"""A trained tokenizer as one folder, and what it is for: an item in, codes out.

Shapes: N items · L codes per item · D code dimension.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from utgrec import storage
from utgrec.config import from_dict, require, to_dict
from utgrec.data.split import Split
from utgrec.errors import SettingsMismatch
from utgrec.progress import Progress, silent
from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.company import CompanyConfig, Floats, company_directions
from utgrec.tokenizer.items import (
    ItemInputs,
    build_prompts,
    by_length,
    read_contents,
    read_items,
)
from utgrec.tokenizer.latents import LatentsConfig, PatchPCA
from utgrec.tokenizer.model import HeadsConfig, LossWeights, TokenizerModel
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.tiny import TinyBackboneConfig
from utgrec.training.trainer import TrainerConfig

ENCODE_AT_ONCE = 128
STAGE = "tokenizer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Everything that makes a tokenizer."""

    backbone: TinyBackboneConfig
    """The embedded backbone."""
    quantizer: QuantizerConfig
    """Codebooks and code length."""
    heads: HeadsConfig
    """Projection and decoders."""
    latents: LatentsConfig
    """Picture latents."""
    weights: LossWeights
    """Weights of the losses."""
    trainer: TrainerConfig
    """How it is trained; a step is one batch."""
    company: CompanyConfig = dataclasses.field(default_factory=CompanyConfig)
    """How the log helps to tell what an item is."""
    batch_size: int = 128
    """Items per batch, partners included."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 2, f"batch_size must be at least 2, got {self.batch_size}")
        require(
            self.quantizer.warmup_steps < self.trainer.steps,
            f"the quantiser's warmup_steps ({self.quantizer.warmup_steps}) must be fewer than the "
            f"trainer's steps ({self.trainer.steps}): codebooks are placed after the warm-up",
        )


class ItemTokenizer:
    """Turns items into codes, also items that nobody has seen before."""

    def __init__(self, model: TokenizerModel, codec: PatchPCA, config: TokenizerConfig) -> None:
        self.model = model.eval()
        self.codec = codec
        self.config = config

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, config: TokenizerConfig | None = None
    ) -> "ItemTokenizer":
        """Open a finished tokenizer stage.

        Args:
            config: how it is to be trained on; everything that gives a weight its shape or a code
                its meaning must be as it was. None is the configuration it was made with.

        Raises:
            MissingStage, FormatVersionError, CorruptFile: the folder cannot be used.
            SettingsMismatch: `config` is for another network or other codes.
        """
        folder = Path(folder)
        manifest = storage.read_manifest(folder, STAGE)
        made_with = from_dict(TokenizerConfig, manifest.config)
        config = config or made_with
        if differs := different_network(made_with, config):
            raise SettingsMismatch(
                f"the tokenizer {folder} cannot be trained on with {'; '.join(differs)}; use the "
                "settings it was made with, or train a new tokenizer"
            )
        for name in manifest.files:
            if name.startswith("backbone/"):
                storage.check_file(folder, manifest, name)
        model = create_model(folder / "backbone", config)
        tensors = load_file(storage.check_file(folder, manifest, "heads.safetensors"))
        state = model.state_dict()
        model.load_state_dict({**state, **tensors})
        codec_file = storage.check_file(folder, manifest, "latents.safetensors")
        return cls(model, PatchPCA.load(codec_file, config.latents), config)

    def save(self, folder: Path) -> None:
        """Write backbone, heads and codec into `folder`; the manifest is the caller's."""
        backbone = self.model.backbone
        backbone.model.save_pretrained(folder / "backbone")
        backbone.text_tokenizer.save_pretrained(folder / "backbone")
        backbone.picture_processor.save_pretrained(folder / "backbone")
        # Cloned: a quantiser without a tree names one codebook twice, which safetensors refuses.
        heads = {
            name: tensor.clone().contiguous()
            for name, tensor in self.model.state_dict().items()
            if not name.startswith("backbone.")
        }
        save_file(heads, folder / "heads.safetensors")
        self.codec.save(folder / "latents.safetensors")

    def read(
        self,
        texts: Sequence[str],
        pictures: Sequence[Path | None],
        progress: Progress = silent,
    ) -> ItemInputs:
        """Prepare words and pictures of N items for `states`, without any company."""
        items = read_items(
            texts,
            pictures,
            self.model.backbone,
            self.codec,
            self.config.heads.max_text_tokens,
            progress,
        )
        return self._summarize(items, np.zeros((len(items), 0)))

    def add_company(self, items: ItemInputs, split: Split) -> ItemInputs:
        """Tell the items of one domain apart by what its training histories show, too."""
        return self._summarize(items, company_directions(split, len(items), self.config.company))

    def _summarize(self, items: ItemInputs, directions: Floats) -> ItemInputs:
        contents = read_contents(items, self.model.features.words)
        return items.with_summary(self.model.features.vectors(contents, directions))

    @torch.no_grad()
    def states(
        self,
        items: ItemInputs,
        progress: Progress = silent,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> Tensor:
        """States of N items, in float32 so that codes do not depend on the batch: (N, L, D).

        With `rows`, the states of these items alone; those of the others are zeros.
        """
        quantizer = self.config.quantizer
        out = torch.zeros(len(items), quantizer.code_length, quantizer.dim)
        done = 0
        wanted = np.arange(len(items)) if rows is None else rows
        for rows in by_length(items, wanted, ENCODE_AT_ONCE):
            prompts = build_prompts(items, rows, self.model.backbone, quantizer.code_length)
            out[torch.from_numpy(rows)] = self.model.states(prompts)
            done += len(rows)
            progress("Encoding items", done, len(wanted))
        return out

    def refit_statistics(self, items: ItemInputs, progress: Progress = silent) -> None:
        """Measure the mean and the scale of states anew, on the N items of a new domain."""
        self.model.standardize.refit(self.states(items, progress))

    def encode(self, *, text: str, image: str | Path | None = None) -> tuple[int, ...]:
        """The nearest codes of one item, L integers, each counted within its own codebook.

        Two items may get the same codes; assignment over a catalogue keeps them apart.
        """
        items = self.read([text], [None if image is None else Path(image)])
        codes = self.model.quantizer(self.states(items)).codes[0]
        return tuple(int(code) for code in codes)


def different_network(one: TokenizerConfig, other: TokenizerConfig) -> list[str]:
    """What two configurations would not share: shapes of weights and meaning of codes.

    Losses, training and how codebooks learn are left out; they may change from stage to stage.
    """
    was, now = _network(one), _network(other)
    return [
        f"{name}: {was.get(name)!r} there, {now.get(name)!r} asked"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]


def _network(config: TokenizerConfig) -> dict[str, Any]:
    values = to_dict(config)
    sections = {name: values[name] for name in ("backbone", "heads", "latents")}
    sections["company"] = {name: values["company"][name] for name in ("rank", "window")}
    sections["quantizer"] = {
        name: values["quantizer"][name]
        for name in ("kind", "tree", "root_size", "leaf_size", "code_length", "dim")
    }
    return {
        f"{name}.{key}": value for name, part in sections.items() for key, value in part.items()
    }


def create_model(backbone_folder: Path, config: TokenizerConfig) -> TokenizerModel:
    """The network around a backbone folder, with fresh heads from torch's current seed."""
    return TokenizerModel(
        Backbone(backbone_folder),
        config.quantizer,
        config.heads,
        config.latents,
        config.weights,
        config.company,
    )
