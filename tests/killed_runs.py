"""Runs that are killed, in processes that are cheap to start: most of a short run is imports.

Started as a program, it imports everything once and then forks a process for each line it reads:
a JSON object with `out`, the run folder; `domains`; `base`, the run to adapt to the only domain, or
null; `after_s`, when to kill it (seconds, or null);
`rename`, to kill it at its n-th rename (negative: just before it), or null. It answers with one
line each: `killed` and the training steps that the process reported.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until the input ends."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import accelerate  # noqa: F401
    from transformers import (  # noqa: F401
        AutoImageProcessor,
        AutoModel,
        AutoTokenizer,
        Qwen2VLModel,
        T5ForConditionalGeneration,
    )
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl  # noqa: F401

    from mini_run import mini_recipe
    from utgrec import adaptation  # noqa: F401

    recipe = mini_recipe(checkpoint_every_s=0.0)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_attempt(json.loads(line), recipe)), flush=True)


def _attempt(order: dict[str, Any], recipe: Any) -> dict[str, Any]:
    log = Path(order["out"]).with_suffix(".steps")
    log.write_text("")
    child = os.fork()
    if child == 0:
        _run(order, recipe, log)
    if order["after_s"] is not None:
        time.sleep(order["after_s"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    steps = [line.rsplit(" ", 1) for line in log.read_text().splitlines()]
    return {
        "killed": os.WIFSIGNALED(status),
        "status": os.waitstatus_to_exitcode(status),
        "steps": [[work, int(step)] for work, step in steps],
    }


def _run(order: dict[str, Any], recipe: Any, log: Path) -> None:
    """The child: do all stages, and leave without cleaning up."""
    from utgrec.adaptation import adapt_run
    from utgrec.runs import run_recipe

    if order["rename"] is not None:
        _die_at_rename(order["rename"])
    stream = open(log, "a")  # noqa: SIM115

    def note(work: str, done: int, total: int, text: str = "") -> None:
        if work.startswith("Training"):
            stream.write(f"{work} {done}\n")
            stream.flush()

    code = 1
    try:
        domains, out = [Path(folder) for folder in order["domains"]], Path(order["out"])
        if order["base"] is None:
            run_recipe(recipe, domains, out, note)
        else:
            adapt_run(Path(order["base"]), *domains, out, progress=note)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _die_at_rename(number: int) -> None:
    """Kill this process at its n-th rename; a negative number means before it is done."""
    replace, left = os.replace, [abs(number)]

    def counted(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and number < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted


if __name__ == "__main__":
    main()
