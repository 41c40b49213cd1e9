"""A trained tokenizer as one folder, and what it is for: an item in, codes out.

Shapes: N items · L codes per item · D code dimension.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from utgrec import storage
from utgrec.config import from_dict, require
from utgrec.data.split import Split
from utgrec.errors import CorruptFile, MissingStage, SettingsMismatch
from utgrec.progress import Progress, silent
from utgrec.tokenizer.backbone import CPU, Backbone
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.backbone_source import (
    find_source,
    fingerprint_folder,
)
from utgrec.tokenizer.cache import RowCache
from utgrec.tokenizer.company import Floats, company_directions
from utgrec.tokenizer.items import (
    ItemInputs,
    build_prompts,
    like_lengths,
    prompt_lengths,
    read_contents,
    read_items,
)
from utgrec.tokenizer.kl_latents import KL_FILE, KLLatents, KLLatentsConfig
from utgrec.tokenizer.latents import LATENTS_FILE, Codec, LatentsConfig, PatchPCA
from utgrec.tokenizer.model import TokenizerModel
from utgrec.tokenizer.settings import TokenizerConfig, different_network, recorded

__all__ = ["STAGE", "ItemTokenizer", "TokenizerConfig", "create_model", "recorded"]
log = logging.getLogger(__name__)
ENCODE_AT_ONCE = 128
FEW = 64  # items that are quicker read anew than looked for in a cache
STAGE = "tokenizer"
HEADS_FILE, BASE_FILE = "heads.safetensors", "base.json"


class ItemTokenizer:
    """Turns items into codes, also items that nobody has seen before."""

    def __init__(self, model: TokenizerModel, codec: Codec, config: TokenizerConfig) -> None:
        self.model = model.eval()
        self.codec = codec
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        config: TokenizerConfig | None = None,
        *,
        backbone: str | Path | None = None,
        device: torch.device | str = CPU,
    ) -> "ItemTokenizer":
        """Open a finished tokenizer stage, or a folder that `utgrec tokenizer publish` wrote.

        Args:
            config: how it is to be trained on; everything that gives a weight its shape or a code
                its meaning must be as it was. None is the configuration it was made with.
            backbone: where the base model is (hub name or folder), if not where it was trained.
            device: where it is to be; "cuda" for a GPU.

        Raises:
            MissingStage, FormatVersionError, CorruptFile: the folder, or its base model, cannot be
                used.
            SettingsMismatch: `config` is for another network or other codes, or `backbone` is not
                the base model that it was trained on.
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
            if name.startswith(("backbone/", "adapter/", "processor/")):
                storage.check_file(folder, manifest, name)
        asked = None if backbone is None else str(backbone)
        model = _open_model(folder, manifest, config, asked, torch.device(device))
        tensors = load_file(storage.check_file(folder, manifest, HEADS_FILE))
        model.load_state_dict(tensors, strict=False)
        lacking = sorted(set(_head_names(model)) ^ set(tensors))
        if lacking:
            raise CorruptFile(
                f"{folder / HEADS_FILE} holds the weights of another network ({lacking[0]} is only "
                "in one of them); make this tokenizer again"
            )
        return cls(model, _open_codec(folder, manifest, config.latents), config)

    def save(self, folder: Path) -> None:
        """Write backbone, heads and codec into `folder`; the manifest is the caller's."""
        backbone = self.model.backbone
        backbone.save(folder)
        settings = self.config.backbone
        if isinstance(settings, PretrainedBackboneConfig):
            base = {
                "name": settings.name,
                "revision": backbone.revision or settings.revision,
                "fingerprint": backbone.fingerprint,
                "dtype": str(backbone.feature_dtype).removeprefix("torch."),
            }
            storage.write_json(folder / BASE_FILE, base)
        state = self.model.state_dict()
        # Cloned: a quantiser without a tree names one codebook twice, which safetensors refuses.
        heads = {name: state[name].cpu().clone().contiguous() for name in _head_names(self.model)}
        save_file(heads, folder / HEADS_FILE)
        self.codec.save(folder)

    def read(
        self,
        texts: Sequence[str],
        pictures: Sequence[Path | None],
        progress: Progress = silent,
        *,
        kept: RowCache | None = None,
    ) -> ItemInputs:
        """Prepare words and pictures of N items for `states`, without any company.

        Latents, which only training needs, are left out. With `kept`, what is not in there is
        computed and forgotten: the way of catalogues whose features would fill a disk.
        """
        items = read_items(
            texts,
            pictures,
            self.model.backbone,
            None,
            self.config.heads.max_text_tokens,
            progress,
            cache=self.cache if len(texts) > FEW else None,
            kept=kept,
        )
        return self._summarize(items, np.zeros((len(items), 0)))

    @property
    def cache(self) -> Path | None:
        """Folder that keeps picture features.

        A small model of our own makes them in seconds, and only its own run has a use for them:
        they are kept only where `$UTGREC_CACHE` names a folder.
        """
        settings = self.config.backbone
        if isinstance(settings, PretrainedBackboneConfig):
            return storage.cache_folder(settings.machine.cache)
        return storage.cache_folder() if os.environ.get(storage.CACHE_VARIABLE) else None

    def add_company(self, items: ItemInputs, split: Split) -> ItemInputs:
        """Tell the items of one domain apart by what its training histories show, too."""
        return self._summarize(items, company_directions(split, len(items), self.config.company))

    def _summarize(self, items: ItemInputs, directions: Floats) -> ItemInputs:
        features = self.model.features
        contents = read_contents(items, features.words, features.lens)
        return items.with_summary(features.vectors(contents, directions))

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
        done = places = used = 0
        device = self.model.queries.device
        wanted = np.arange(len(items)) if rows is None else rows
        lengths = prompt_lengths(items, self.model.backbone, quantizer.code_length)[wanted]
        for group in like_lengths(lengths, 1, ENCODE_AT_ONCE):
            rows = wanted[group]
            prompts = build_prompts(items, rows, self.model.backbone, quantizer.code_length)
            places += prompts.tokens.numel()
            used += int(prompts.lengths.sum())
            out[torch.from_numpy(rows)] = self.model.states(prompts.to(device)).cpu()
            done += len(rows)
            progress("Encoding items", done, len(wanted))
        log.info(
            "%d items, %.1f %% of the prompts padding", done, 100 * (1 - used / max(places, 1))
        )
        return out

    def refit_statistics(self, items: ItemInputs, progress: Progress = silent) -> None:
        """Measure the mean and the scale of states anew, on the N items of a new domain."""
        self.model.standardize.refit(self.states(items, progress))

    def encode(self, *, text: str, image: str | Path | None = None) -> tuple[int, ...]:
        """The nearest codes of one item, L integers, each counted within its own codebook.

        Two items may get the same codes; assignment over a catalogue keeps them apart.
        """
        items = self.read([text], [None if image is None else Path(image)])
        states = self.states(items).to(self.model.queries.device)
        codes = self.model.quantizer(states).codes[0]
        return tuple(int(code) for code in codes)


def _open_model(
    folder: Path,
    manifest: storage.Manifest,
    config: TokenizerConfig,
    asked: str | None,
    device: torch.device,
) -> TokenizerModel:
    """The network of a finished tokenizer, its heads still new."""
    if not isinstance(config.backbone, PretrainedBackboneConfig):
        require(
            asked is None,
            f"the tokenizer {folder} holds its own backbone; leave `backbone` ({asked}) out",
        )
        return create_model(folder / "backbone", config, device)
    base = storage.read_json(storage.check_file(folder, manifest, BASE_FILE))
    try:
        source = find_source(asked or config.backbone.name, base["revision"])
    except MissingStage as error:
        raise MissingStage(
            f"the tokenizer {folder} reads items with {base['name']}, which is not here ({error}); "
            "say where it is: --backbone, or from_pretrained(folder, backbone=...)"
        ) from error
    found = fingerprint_folder(source.folder)
    if found != base["fingerprint"]:
        raise SettingsMismatch(
            f"{source.name} is not the model that the tokenizer {folder} was trained on "
            f"({base['name']}, revision {base['revision']}); give that one as `backbone`"
        )
    adapter = folder / "adapter"
    model = create_model(
        source.folder,
        config,
        device,
        adapter_folder=adapter if adapter.is_dir() else None,
        processors=folder / "processor",
        name=source.name,
        revision=source.revision,
    )
    made_in, here = base.get("dtype"), str(model.backbone.feature_dtype).removeprefix("torch.")
    if made_in not in (None, here):
        log.info(
            "%s was trained with its base model in %s, which is %s here: an item that lies nearly "
            "half-way between two codes may get the other one",
            *(folder, made_in, here),
        )
    return model


def _head_names(model: TokenizerModel) -> list[str]:
    """Names of all weights that are neither the backbone's own nor in its adapter."""
    ours = "backbone.trained_layers."
    names = model.state_dict()
    return [name for name in names if not name.startswith("backbone.") or name.startswith(ours)]


def create_model(
    backbone_folder: Path, config: TokenizerConfig, device: torch.device = CPU, **opened: Any
) -> TokenizerModel:
    """The network around a backbone folder, with fresh heads from torch's current seed.

    `opened` is what `Backbone` takes beside a pretrained one's settings.
    """
    settings = config.backbone
    if isinstance(settings, PretrainedBackboneConfig):
        backbone = Backbone(backbone_folder, settings, device=device, **opened)
    else:
        backbone = Backbone(backbone_folder)
    model = TokenizerModel(
        backbone, config.quantizer, config.heads, config.latents, config.weights, config.company
    )
    return model.to(device)


def make_codec(
    config: LatentsConfig | KLLatentsConfig, pictures: Callable[[int], Sequence[Image.Image]]
) -> Codec:
    """A new codec; `pictures` gives some to fit it on, at most so many, if it has to be fitted."""
    if isinstance(config, KLLatentsConfig):
        return KLLatents(config)
    return PatchPCA.fit(pictures(config.fit_pictures), config)


def _open_codec(
    folder: Path, manifest: storage.Manifest, config: LatentsConfig | KLLatentsConfig
) -> Codec:
    if isinstance(config, KLLatentsConfig):
        return KLLatents.load(storage.check_file(folder, manifest, KL_FILE), config)
    return PatchPCA.load(storage.check_file(folder, manifest, LATENTS_FILE), config)
