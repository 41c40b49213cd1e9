"""Settings of every family of baselines that fit in a fraction of a second."""

import dataclasses
from typing import Any

from utgrec.evaluation.baselines.counting import PopularityConfig
from utgrec.evaluation.baselines.matrices import ALSConfig, BM25Config
from utgrec.evaluation.baselines.sequence_config import BERT4RecConfig, SASRecConfig
from utgrec.evaluation.baselines.texts import TextKNNConfig
from utgrec.evaluation.baselines.tiger import (
    KMeansTigerConfig,
    RQVAETigerConfig,
    tiger_recommender,
)
from utgrec.evaluation.generative import DecodingConfig, ValidationConfig
from utgrec.evaluation.itemknn import ItemKNNConfig

_BASE = tiger_recommender()
_RECOMMENDER = dataclasses.replace(
    _BASE,
    batch_size=32,
    sizes=dataclasses.replace(
        _BASE.sizes,
        width=16,
        feed_forward=16,
        heads=2,
        trunk_layers=1,
        writer_layers=1,
    ),
    trainer=dataclasses.replace(_BASE.trainer, steps=6, validate_every=0, patience=0),
)
_SEQUENCE: dict[str, Any] = {
    "width": 16,
    "layers": 1,
    "max_items": 8,
    "batch_items": 64,
    "epochs": 2,
    "min_steps": 1,
    "validation_users": 0,
}
_TIGER: dict[str, Any] = {
    "text_width": 8,
    "size": 4,
    "recommender": _RECOMMENDER,
    "validation": ValidationConfig(users=30, beam=5),
    "decoding": DecodingConfig(beam=30, precision="fp32"),
}

SMALL: dict[str, Any] = {
    "popularity": PopularityConfig(last=5),
    "itemknn": ItemKNNConfig(decay=0.8, shrink=1.0),
    "itemknn-text": TextKNNConfig(text=0.5, shrink=1.0),
    "bm25": BM25Config(decay=0.8),
    "als": ALSConfig(factors=8, iterations=3),
    "sasrec": SASRecConfig(**_SEQUENCE),
    "sasrec-sampled": SASRecConfig(**_SEQUENCE, negatives=16),
    "bert4rec": BERT4RecConfig(**_SEQUENCE),
    "tiger": KMeansTigerConfig(**_TIGER, iterations=5),
    "tiger-rqvae": RQVAETigerConfig(**_TIGER, width=4, steps=3, batch_size=32),
}
"""Nothing here looks at validation items while it learns."""


def with_validation(settings: Any) -> Any:
    """The same settings, stopped early on validation items where the family does so."""
    if isinstance(settings, (SASRecConfig, BERT4RecConfig)):
        return dataclasses.replace(settings, epochs=4, validation_users=30, patience=1)
    if isinstance(settings, (KMeansTigerConfig, RQVAETigerConfig)):
        trainer = dataclasses.replace(settings.recommender.trainer, validate_every=2, patience=1)
        return dataclasses.replace(
            settings, recommender=dataclasses.replace(settings.recommender, trainer=trainer)
        )
    return settings


NEEDS = {"bm25": "implicit", "als": "implicit", "tiger-rqvae": "vector_quantize_pytorch"}
"""The optional packages that a family cannot do without."""
