"""Complete configurations: each function returns everything a run needs.

A recipe is plain data. Change one with `dataclasses.replace`, or copy a function.
"""

import dataclasses
from collections.abc import Callable, Sequence

from utgrec.config import require
from utgrec.errors import BadConfig
from utgrec.evaluation.generative import DecodingConfig, ValidationConfig
from utgrec.recommender.causal import CausalSizes
from utgrec.recommender.ranker import RankerConfig
from utgrec.recommender.t5 import T5Sizes
from utgrec.recommender.train import RecommenderConfig, tiny_recommender
from utgrec.regimes import AdaptConfig, without
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.kl_latents import KLLatentsConfig
from utgrec.tokenizer.latents import LatentsConfig
from utgrec.tokenizer.model import HeadsConfig, LossWeights
from utgrec.tokenizer.pretrained import TokenizerConfig
from utgrec.tokenizer.quantizer import QuantizerConfig
from utgrec.tokenizer.settings import with_backbone, with_vae
from utgrec.tokenizer.tiny import TinyBackboneConfig
from utgrec.training.trainer import TrainerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that turns domains into an evaluated recommender."""

    name: str
    """Name of the function that made it."""
    tokenizer: TokenizerConfig
    """Items → codes."""
    recommender: RecommenderConfig
    """Histories of codes → codes of the next item."""
    validation: ValidationConfig
    """How the recommender is validated while it trains."""
    decoding: DecodingConfig
    """How items are decoded in the evaluation, and by default afterwards."""
    ranker: RankerConfig = dataclasses.field(default_factory=RankerConfig)
    """How the best items are put in order."""
    exclude_seen: bool = True
    """Whether items of a user's own history are never recommended; the same for all systems."""
    adapt: AdaptConfig = dataclasses.field(default_factory=AdaptConfig)
    """How a finished run of this recipe is adapted to a domain that it has not seen."""

    def __post_init__(self) -> None:
        require(
            self.tokenizer.quantizer.code_length >= 2,
            f"code_length must be at least 2, got {self.tokenizer.quantizer.code_length}",
        )


def tiny(seed: int = 0) -> Recipe:
    """Two CPU cores, no download: ten thousand items in about twenty minutes."""
    return Recipe(
        name="tiny",
        tokenizer=TokenizerConfig(
            backbone=TinyBackboneConfig(seed=seed),
            quantizer=QuantizerConfig(warmup_steps=40),
            heads=HeadsConfig(
                projection_width=256,
                dropout=0.0,
                decoder_width=128,
                diffusion_width=128,
                diffusion_depth=2,
                diffusion_draws=2,
                max_text_tokens=64,
            ),
            latents=LatentsConfig(),
            # The paper's weights suit a pre-trained backbone. One that starts at random needs more
            # from its neighbours, and standardised states make the code loss 100 times larger.
            weights=LossWeights(code=0.3, alignment=0.4, partner=0.3),
            # Longer training makes codes rebuild an item's own words better, and forget what is
            # taken beside it (docs/quality.md).
            trainer=TrainerConfig(steps=120, learning_rate=5e-4, warmup_share=0.1, seed=seed),
        ),
        recommender=tiny_recommender(seed),
        validation=ValidationConfig(),
        decoding=DecodingConfig(),
        ranker=RankerConfig(seed=seed),
        adapt=AdaptConfig(seed=seed),
    )


def demo(seed: int = 0) -> Recipe:
    """The simulated shops of `utgrec demo`: a few minutes on two CPU cores."""
    base = tiny(seed)
    tokenizer = dataclasses.replace(
        base.tokenizer,
        backbone=TinyBackboneConfig(vocabulary=1024, layers=3, seed=seed),
        quantizer=dataclasses.replace(
            base.tokenizer.quantizer, root_size=64, leaf_size=128, revive_every=25
        ),
        heads=dataclasses.replace(base.tokenizer.heads, max_text_tokens=48),
    )
    recommender = dataclasses.replace(
        base.recommender,
        sizes=CausalSizes(),
        batch_size=512,
        trainer=dataclasses.replace(
            base.recommender.trainer,
            steps=1200,
            learning_rate=3e-3,
            validate_every=300,
            patience=0,
        ),
    )
    return dataclasses.replace(base, name="demo", tokenizer=tokenizer, recommender=recommender)


def paper_pretrain(seed: int = 0) -> Recipe:
    """The paper's settings (§4.1.3): Qwen2-VL-2B with LoRA and KL-16 latents, many GPUs.

    A batch is 256 anchors and their partners. The autoencoder is expected in models/kl16
    (docs/scale.md says how to make that folder).
    """
    return Recipe(
        name="paper_pretrain",
        tokenizer=TokenizerConfig(
            backbone=PretrainedBackboneConfig(name="Qwen/Qwen2-VL-2B-Instruct"),
            quantizer=QuantizerConfig(),
            heads=HeadsConfig(),
            latents=KLLatentsConfig(vae="models/kl16"),
            weights=LossWeights(),
            trainer=TrainerConfig(
                steps=1_000_000,  # epochs decide
                learning_rate=3e-4,
                weight_decay=0.01,
                warmup_share=0.03,
                checkpoint_every_s=600.0,
                at_once=16,
                seed=seed,
            ),
            batch_size=512,
            epochs=3.0,
        ),
        recommender=RecommenderConfig(
            sizes=T5Sizes(),
            batch_size=1024,
            trainer=TrainerConfig(
                steps=50_000,
                learning_rate=5e-3,
                weight_decay=0.05,
                validate_every=1000,
                patience=10,
                seed=seed,
            ),
        ),
        validation=ValidationConfig(),
        decoding=DecodingConfig(),
        adapt=paper_adapt(seed),
    )


def paper_adapt(seed: int = 0) -> AdaptConfig:
    """The paper's adaptation: 40 epochs on the new domain, the basis frozen, its projection not."""
    return AdaptConfig(
        regime="full",
        tokenizer_steps=1_000_000,  # epochs decide
        tokenizer_epochs=40.0,
        tokenizer_learning_rate=1e-4,
        recommender_steps=20_000,
        recommender_learning_rate=5e-4,
        seed=seed,
    )


def small(seed: int = 0) -> Recipe:
    """One GPU of 24 GB: the paper's backbone with smaller pictures and latents that need no model.

    States are standardised and begin as features, as in `tiny`, so the weights of the losses are
    those of `tiny` (docs/tokenizer.md).
    """
    base = paper_pretrain(seed)
    tokenizer = dataclasses.replace(
        base.tokenizer,
        backbone=PretrainedBackboneConfig(
            name="Qwen/Qwen2-VL-2B-Instruct", max_pixels=64 * 28 * 28
        ),
        latents=LatentsConfig(),
        weights=LossWeights(code=0.3, alignment=0.4, partner=0.3),
        batch_size=128,
        epochs=2.0,
    )
    recommender = dataclasses.replace(tiny_recommender(seed), sizes=CausalSizes(width=256))
    adapt = dataclasses.replace(base.adapt, tokenizer_epochs=5.0)
    return dataclasses.replace(
        base, name="small", tokenizer=tokenizer, recommender=recommender, adapt=adapt
    )


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "tiny": tiny,
    "demo": demo,
    "small": small,
    "paper_pretrain": paper_pretrain,
}


def find_recipe(
    name: str,
    seed: int = 0,
    *,
    leave_out: Sequence[str] = (),
    backbone: str | None = None,
    vae: str | None = None,
) -> Recipe:
    """The recipe of a name, without the parts of the tokenizer that are to be left out.

    Args:
        backbone: hub name or folder of another pretrained model than the recipe's.
        vae: folder of the picture autoencoder whose latents training rebuilds.

    Raises:
        BadConfig: there is no such recipe, or no such part, or its backbone cannot be chosen.
    """
    if name not in RECIPES:
        raise BadConfig(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = reduced(RECIPES[name](seed), leave_out)
    if vae is not None:
        recipe = dataclasses.replace(recipe, tokenizer=with_vae(recipe.tokenizer, vae))
    return recipe if backbone is None else on_backbone(recipe, backbone)


def on_backbone(recipe: Recipe, name: str) -> Recipe:
    """The same recipe on another pretrained model, by its hub name or folder."""
    return dataclasses.replace(recipe, tokenizer=with_backbone(recipe.tokenizer, name))


def reduced(recipe: Recipe, leave_out: Sequence[str]) -> Recipe:
    """The same recipe without some parts of the tokenizer (see `utgrec.regimes.without`)."""
    if not leave_out:
        return recipe
    return dataclasses.replace(
        recipe,
        name=f"{recipe.name} without {' and '.join(leave_out)}",
        tokenizer=without(recipe.tokenizer, leave_out),
    )
