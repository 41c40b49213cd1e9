"""The command line with a miniature recipe under the name `mini`, as one of several processes.

Dropout is off: its masks differ from process to process, and all else must not. The variable
STOP_AT says after which training step this process sends itself SIGTERM.
"""

import dataclasses
import os
import signal

from mini_run import mini_recipe
from utgrec import recipes
from utgrec.recipes import Recipe


def exact_recipe(seed: int = 0) -> Recipe:
    """The miniature recipe in float32 and without dropout."""
    recipe = mini_recipe(precision="fp32", checkpoint_every_s=1e9, log_every=1)
    change, tokenizer, recommender = dataclasses.replace, recipe.tokenizer, recipe.recommender
    return change(
        recipe,
        tokenizer=change(
            tokenizer,
            heads=change(tokenizer.heads, dropout=0.0),
            company=change(tokenizer.company, dropout=0.0),
            trainer=change(tokenizer.trainer, steps=8),
            quantizer=change(tokenizer.quantizer, revive_every=3),
        ),
        recommender=change(
            recommender,
            sizes=change(recommender.sizes, dropout=0.0),
            ranking=change(recommender.ranking, hidden_share=0.0, dropped_words=0.0),
            trainer=change(recommender.trainer, patience=0, seed=seed),
        ),
    )


def stop_at(step: int) -> None:
    """Send this process SIGTERM when so many training steps are done."""
    from utgrec.training.standing import Standing

    count = Standing.count

    def counted(self: Standing, values: dict[str, float]) -> None:
        count(self, values)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    Standing.count = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    recipes.RECIPES["mini"] = exact_recipe
    if "STOP_AT" in os.environ and os.environ["RANK"] == os.environ.get("STOP_RANK", "0"):
        stop_at(int(os.environ["STOP_AT"]))
    from utgrec.cli import app

    app()
