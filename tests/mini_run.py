"""A miniature marketplace and a recipe that does every stage on it in about a second."""

import dataclasses
import hashlib
import json
from pathlib import Path

from utgrec.data.marketplace import MarketplaceConfig, write_marketplace
from utgrec.recipes import Recipe, demo


def mini_recipe(**trainer: object) -> Recipe:
    """All stages, a few steps each; `trainer` changes the settings of both trainers."""
    base, change = demo(), dataclasses.replace
    tokenizer, recommender = base.tokenizer, base.recommender
    return change(
        base,
        name="mini",
        tokenizer=change(
            tokenizer,
            batch_size=16,
            backbone=change(
                tokenizer.backbone,
                vocabulary=320,
                hidden_size=32,
                layers=1,
                heads=2,
                feed_forward=32,
                picture_tokens=4,
                vision_width=32,
            ),
            quantizer=change(tokenizer.quantizer, root_size=6, leaf_size=8, dim=8, warmup_steps=2),
            heads=change(
                tokenizer.heads,
                projection_width=16,
                decoder_width=16,
                diffusion_width=16,
                diffusion_depth=1,
                diffusion_draws=1,
                max_text_tokens=16,
            ),
            latents=change(tokenizer.latents, side=32, patch=8, channels=4),
            trainer=change(tokenizer.trainer, **{"steps": 5, "log_every": 2, **trainer}),
        ),
        recommender=change(
            recommender,
            batch_size=32,
            sizes=change(
                recommender.sizes,
                width=16,
                feed_forward=16,
                heads=2,
                trunk_layers=1,
                writer_layers=1,
            ),
            trainer=change(
                recommender.trainer, **{"steps": 6, "validate_every": 2, "log_every": 4, **trainer}
            ),
        ),
        validation=change(base.validation, users=20, beam=5),
        ranker=change(base.ranker, epochs=2, candidates=20),
        decoding=change(base.decoding, beam=20),
        adapt=change(base.adapt, tokenizer_steps=4, recommender_steps=4),
    )


def mini_domains(
    folder: Path, shops: tuple[str, ...] = ("kitchen", "clothing"), seed: int = 7
) -> list[Path]:
    """Shops of 60 items and 60 users."""
    config = MarketplaceConfig(
        seed=seed, shops=shops, items_per_shop=60, users_per_shop=60, picture_size=28
    )
    return write_marketplace(folder, config)


def contents(run: Path) -> dict[str, str]:
    """Every file of a run → its hash, without what may differ between equal runs.

    Those are hidden work folders, and what manifests say about time and memory.
    """
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run)
        if path.is_dir() or any(part.startswith(".") for part in name.parts):
            continue
        content = path.read_bytes()
        if path.name == "manifest.json":
            values = json.loads(content)
            assert values.pop("measured"), f"{path} measured nothing"
            content = json.dumps(values).encode()
        found[name.as_posix()] = hashlib.sha256(content).hexdigest()
    return found
