"""One small backbone and one set of odd items for all tests of the tokenizer."""

from pathlib import Path

import pytest
import torch
from small_items import (
    BACKBONE,
    LATENTS,
    MAX_TEXT_TOKENS,
    SHAPES,
    TEXTS,
    draw_picture,
    write_pictures,
)

from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.items import ItemInputs, read_items
from utgrec.tokenizer.latents import PatchPCA
from utgrec.tokenizer.tiny import create_tiny_backbone


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone made from the odd items."""
    folder = tmp_path_factory.mktemp("backbone")
    shown = [draw_picture(*shape, seed=7) for shape in SHAPES if shape is not None]
    create_tiny_backbone(folder, TEXTS, shown, BACKBONE)
    return folder


@pytest.fixture(scope="session")
def backbone(backbone_folder: Path) -> Backbone:
    """The backbone, not to be changed."""
    return Backbone(backbone_folder).eval()


@pytest.fixture(scope="session")
def codec() -> PatchPCA:
    """Picture latents."""
    shown = [draw_picture(*shape, seed=7) for shape in SHAPES if shape is not None]
    return PatchPCA.fit(shown, LATENTS)


@pytest.fixture(scope="session")
def picture_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path | None]:
    """The items' pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def items(backbone: Backbone, codec: PatchPCA, picture_files: list[Path | None]) -> ItemInputs:
    """The odd items as the tokenizer reads them."""
    items = read_items(TEXTS, picture_files, backbone, codec, MAX_TEXT_TOKENS)
    generator = torch.Generator().manual_seed(0)
    return items.with_summary(torch.randn(items.summary.shape, generator=generator))
