"""What a command with --dry-run says instead of doing it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utgrec.commands.frame import Answer, Terminal
from utgrec.commands.views import facts_table

if TYPE_CHECKING:
    from utgrec.tokenizer.settings import TokenizerConfig


def plan_answer(
    terminal: Terminal,
    config: "TokenizerConfig",
    domains: Sequence[Path],
    title: str,
    devices: int,
    tflops: float | None,
) -> Answer:
    """What training this tokenizer on these domains will take."""
    from utgrec.catalog import Domain
    from utgrec.estimate import estimate_tokenizer

    opened = [Domain.open(folder) for folder in domains]
    found = estimate_tokenizer(config, opened, processes=devices, tflops=tflops)
    facts = dataclasses.asdict(found)
    document = {"dry_run": True, "tokenizer": facts}
    shown = {name: value for name, value in facts.items() if name != "refused"}
    if found.refused:
        terminal.say(f"This training would be refused: {found.refused}")
    return Answer(document, (facts_table(f"{title}: nothing was started", shown),))
