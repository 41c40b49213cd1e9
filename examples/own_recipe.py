"""A recipe of your own: start from one that is there, change what you want, run it.

    python examples/own_recipe.py domains/shop --out runs/longer

A recipe is a frozen dataclass that holds every setting, so it is changed with
`dataclasses.replace`. The run folder keeps all of it in `run.json`.
"""

import argparse
import dataclasses
from pathlib import Path

from utgrec.recipes import Recipe, find_recipe
from utgrec.runs import run_recipe


def with_more_steps(base: Recipe, times: float) -> Recipe:
    """The same recipe, trained `times` as long."""
    tokenizer, recommender = base.tokenizer, base.recommender
    return dataclasses.replace(
        base,
        name=f"{base.name}, {times:g} times the steps",
        tokenizer=dataclasses.replace(
            tokenizer,
            trainer=dataclasses.replace(
                tokenizer.trainer, steps=round(tokenizer.trainer.steps * times)
            ),
        ),
        recommender=dataclasses.replace(
            recommender,
            trainer=dataclasses.replace(
                recommender.trainer, steps=round(recommender.trainer.steps * times)
            ),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train with a changed recipe.")
    parser.add_argument("domains", nargs="+", type=Path, help="domain folders")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument("--base", default="tiny", help="recipe to start from")
    parser.add_argument("--times", type=float, default=2.0, help="steps, as a multiple of its own")
    given = parser.parse_args()

    recipe = with_more_steps(find_recipe(given.base), given.times)
    for path, made in run_recipe(recipe, given.domains, given.out).items():
        print(f"{path}: {made.measured['wall_s']:.0f} s")


if __name__ == "__main__":
    main()
