"""The tokenizer stage: domains in, a trained tokenizer folder out.

Only items that occur in training histories train it; codes are made for all later.
"""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from utgrec import processes, storage
from utgrec.catalog import Domain
from utgrec.config import require
from utgrec.data.neighbours import Neighbours, find_neighbours, join
from utgrec.data.split import Split, split_domain, trained_facts
from utgrec.errors import BadImage
from utgrec.precision import own_device
from utgrec.progress import Progress, silent
from utgrec.stages import StageResult, Workspace, run_stage
from utgrec.tokenizer.backbone import open_picture
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.backbone_source import find_source
from utgrec.tokenizer.batches import PairBatches, Pairs
from utgrec.tokenizer.company import company_directions
from utgrec.tokenizer.features import ItemFeatures
from utgrec.tokenizer.items import ItemInputs, contents_of, read_contents, read_items
from utgrec.tokenizer.pretrained import (
    STAGE,
    ItemTokenizer,
    TokenizerConfig,
    create_model,
    make_codec,
    recorded,
)
from utgrec.tokenizer.settings import training_steps, why_too_short
from utgrec.tokenizer.tiny import create_tiny_backbone
from utgrec.training.trainer import train, write_losses

log = logging.getLogger(__name__)
FIT_ITEMS = 20_000  # that the leading directions of a wide backbone are found in
TINY_PICTURES = 2000  # that the tiny backbone's patch embedding is fitted on


def train_tokenizer(
    domains: Sequence[Domain],
    config: TokenizerConfig,
    out: Path,
    progress: Progress = silent,
    *,
    start: Path | None = None,
) -> storage.Manifest:
    """Train a tokenizer over all items of several domains and write its folder.

    Args:
        start: a finished tokenizer to go on from, instead of a new backbone and new heads. Its
            vocabulary, vision tower and picture latents stay as they are, since trained weights
            read and write them; the mean and the scale of states are measured anew.

    Raises:
        SettingsMismatch: `out`, or the checkpoint beside it, was made with other settings; or
            `start` is another network or has other codes.
        TrainingError: a loss is not finite.
    """
    require(len(domains) > 0, "a tokenizer needs at least one domain, got none")
    inputs = {f"domain {domain.name}": domain.fingerprint for domain in domains}
    if start is not None:
        inputs["start"] = storage.read_manifest(start, STAGE).fingerprint

    def make(work: Workspace) -> StageResult:
        return _make(domains, config, inputs, start, work, progress)

    return run_stage(
        out, stage=STAGE, config=recorded(config), inputs=inputs, make=make, together=True
    )


class _Pool(NamedTuple):
    """The items of all domains, one domain after the other."""

    item_ids: list[str]
    texts: list[str]
    pictures: list[Path | None]
    trained: npt.NDArray[np.int64]  # items that occur in training histories
    neighbours: Neighbours
    splits: list[Split]
    sizes: list[int]  # items of each domain


def _make(
    domains: Sequence[Domain],
    config: TokenizerConfig,
    inputs: dict[str, str],
    start: Path | None,
    work: Workspace,
    progress: Progress,
) -> StageResult:
    pool = _pool(domains)
    too_short = why_too_short(config, len(pool.trained))
    require(not too_short, too_short)  # before pictures are read, which may take hours
    if start is None:
        tokenizer = _create(pool, config, work)
    else:
        tokenizer = ItemTokenizer.from_pretrained(start, config, device=own_device())
    model, codec = tokenizer.model, tokenizer.codec
    items = read_items(
        pool.texts,
        pool.pictures,
        model.backbone,
        codec,
        config.heads.max_text_tokens,
        progress,
        cache=tokenizer.cache,
    )
    items = _summarize(items, pool, model.features, fit=start is None)
    if start is not None:
        tokenizer.refit_statistics(items, progress)
    batches = PairBatches(
        items,
        pool.neighbours,
        pool.trained,
        model.backbone,
        code_length=config.quantizer.code_length,
        batch_size=config.batch_size,
        seed=config.trainer.seed,
        at_once=config.trainer.at_once,
        partners=config.partners,
    )

    def names(drawn: Pairs) -> list[str]:
        return [pool.item_ids[row] for row in drawn.rows]

    trainer = dataclasses.replace(config.trainer, steps=training_steps(config, len(pool.trained)))
    trained = train(
        model,
        batch=batches.shared._replace(names=names),
        config=trainer,
        work=work.checkpoints / "training",
        inputs={"settings": storage.recipe_fingerprint(STAGE, recorded(config), inputs)},
        progress=progress,
        title="Training the tokenizer",
    )
    if config.quantizer.settle_rounds and processes.is_first():
        model.to(own_device())
        states = tokenizer.states(items, progress, rows=pool.trained)
        trained_states = states[torch.from_numpy(pool.trained)]
        model.quantizer.settle(trained_states.to(model.queries.device))
    tokenizer.save(work.folder)
    write_losses(work.folder / "losses.jsonl", trained)
    facts = {
        "domains": [domain.name for domain in domains],
        **trained_facts(*domains),
        "items_trained": len(pool.trained),
        "steps": trainer.steps,
        "precision": trained.precision,
        "epochs": round(trainer.steps / batches.per_epoch, 2),
        "parameters_trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "unreadable_pictures": [pool.item_ids[row] for row in items.unreadable],
    }
    return StageResult(facts, trained.earlier_s)


def _create(pool: _Pool, config: TokenizerConfig, work: Workspace) -> ItemTokenizer:
    """A tokenizer that knows nothing yet but the words and patches of its items."""
    codec = make_codec(config.latents, lambda count: _sample_pictures(pool, count))
    if isinstance(config.backbone, PretrainedBackboneConfig):
        source = find_source(config.backbone.name, config.backbone.revision)
        torch.manual_seed(config.trainer.seed)
        model = create_model(
            source.folder, config, own_device(), name=source.name, revision=source.revision
        )
        return ItemTokenizer(model, codec, config)
    backbone_folder = work.checkpoints / "backbone"
    if not processes.is_first():
        processes.wait_for(lambda: backbone_folder.is_dir() or None, str(backbone_folder))
    elif not backbone_folder.is_dir():
        with storage.new_folder(backbone_folder) as partial:
            words = [pool.texts[index] for index in pool.trained]
            sample = _sample_pictures(pool, TINY_PICTURES)
            create_tiny_backbone(partial, words, sample, config.backbone)
    torch.manual_seed(config.trainer.seed)
    return ItemTokenizer(create_model(backbone_folder, config), codec, config)


def _pool(domains: Sequence[Domain]) -> _Pool:
    item_ids: list[str] = []
    texts: list[str] = []
    pictures: list[Path | None] = []
    trained, graphs, splits, sizes, start = [], [], [], [], 0
    for domain in domains:
        split = split_domain(domain)
        trained.append(np.unique(split.train).astype(np.int64) + start)
        graphs.append(find_neighbours(split, len(domain.catalog)))
        splits.append(split)
        sizes.append(len(domain.catalog))
        item_ids += domain.catalog.item_ids
        texts += domain.catalog.texts
        pictures += domain.catalog.images
        start += len(domain.catalog)
    return _Pool(item_ids, texts, pictures, np.concatenate(trained), join(graphs), splits, sizes)


def _summarize(items: ItemInputs, pool: _Pool, features: ItemFeatures, *, fit: bool) -> ItemInputs:
    """Give all items their features, fitted on them first if `fit`."""
    device = features.mean.device
    features.to("cpu")  # closed forms in float64, which not every device has
    if fit:
        sample = pool.trained[:: max(1, -(-len(pool.trained) // FIT_ITEMS))]
        features.fit_lens(contents_of(items, sample, features.words))
    contents = read_contents(items, features.words, features.lens)
    if fit:
        features.fit_contents(contents[torch.from_numpy(pool.trained)])
    parts = zip(torch.split(contents, pool.sizes), pool.splits, strict=True)
    summary = torch.cat(
        [
            features.vectors(part, company_directions(split, len(part), features.config))
            for part, split in parts
        ]
    )
    if fit:
        features.fit_states(summary[torch.from_numpy(pool.trained)])
    features.to(device)
    return items.with_summary(summary)


def _sample_pictures(pool: _Pool, count: int) -> list[Image.Image]:
    """Up to `count` readable pictures of trained items, evenly spread over them."""
    paths = [path for path in (pool.pictures[index] for index in pool.trained) if path is not None]
    chosen = paths[:: max(1, -(-len(paths) // count))]
    pictures = []
    for path in chosen:
        try:
            pictures.append(open_picture(path))
        except BadImage as error:
            log.warning("%s", error)
    return pictures
