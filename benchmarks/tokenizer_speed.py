"""How many items per second the tokenizer trains on and encodes, beside the published recipe.

    python benchmarks/tokenizer_speed.py                      # `tiny` on a CPU
    python benchmarks/tokenizer_speed.py --model qwen2-vl-2b  # on a GPU, random weights

Both do the same training step on the same weights, items, precision and device: before anything is
timed, their losses and gradients on the same batch are compared. They run in turn, batch by batch;
figures are medians. An item counts once in training, as the anchor whose words, picture and partner
are learned. The reference encodes its positives too, as the published inference does. With `--each`
every switch of the reference (`published.py`) is also measured by itself. On a CPU with one thread
seconds are those of the processor, which do not depend on what else the machine does. Results go to
`benchmarks/results/tokenizer_speed.json`.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine_facts import machine
from published import Published, PublishedStep, set_checkpointing
from utgrec.catalog import Domain
from utgrec.data.marketplace import MarketplaceConfig, write_marketplace
from utgrec.estimate import KNOWN, UTILISATION, estimate_tokenizer
from utgrec.precision import own_device, uses_bf16
from utgrec.progress import quiet_transformers
from utgrec.recipes import find_recipe
from utgrec.stages import Workspace, peak_memory_mib
from utgrec.storage import CACHE_VARIABLE
from utgrec.tokenizer import train as stage
from utgrec.tokenizer.backbone_config import PretrainedBackboneConfig
from utgrec.tokenizer.batches import PairBatches
from utgrec.tokenizer.items import read_items
from utgrec.tokenizer.model import TokenizerModel
from utgrec.tokenizer.settings import TokenizerConfig
from utgrec.training.distributed import move

RESULTS = Path(__file__).parent / "results" / "tokenizer_speed.json"
NONE = Published(
    apart=False,
    head_everywhere=False,
    frozen_every_step=False,
    right_padding=False,
    whole_logits=False,
    checkpointing=False,
)
LOSS_GAP, GRADIENT_GAP = 1e-3, 1e-2  # relative, float32


class Bench:
    """One model, its items, and both ways to train and to encode."""

    def __init__(self, config: TokenizerConfig, domain: Domain, work: Path) -> None:
        self.config = config
        pool = stage._pool([domain])
        tokenizer = stage._create(pool, config, Workspace(work, work))
        self.tokenizer, self.model = tokenizer, tokenizer.model
        self.device = own_device()
        self.model.to(self.device)
        self.items = read_items(
            pool.texts,
            pool.pictures,
            self.model.backbone,
            tokenizer.codec,
            config.heads.max_text_tokens,
        )
        self.items = stage._summarize(self.items, pool, self.model.features, fit=True)
        self.paths, self.texts = pool.pictures, pool.texts
        self.batches = PairBatches(
            self.items,
            pool.neighbours,
            pool.trained,
            self.model.backbone,
            code_length=config.quantizer.code_length,
            batch_size=config.batch_size,
            seed=0,
            at_once=config.trainer.at_once,
        )

    def way(self, switches: Published) -> PublishedStep:
        """The published recipe with these switches on."""
        return PublishedStep(self.model, self.items, self.paths, self.tokenizer.codec, switches)

    @contextlib.contextmanager
    def trained_with(self, switches: Published) -> Iterator[Callable[[int], dict[str, Any]]]:
        """One training step of a batch's number: forward and backward, with its losses."""
        own = switches == NONE
        step = self.model if own else self.way(switches)
        set_checkpointing(self.model, switches.checkpointing)
        use_bf16 = uses_bf16(self.config.trainer.precision, self.device)

        def train(number: int) -> dict[str, Any]:
            torch.manual_seed(number)
            batch = move(self.batches(number), self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=use_bf16):
                losses = step(batch)
            losses["loss"].backward()
            norm = torch.nn.utils.get_total_norm(
                [value.grad for value in self.model.parameters() if value.grad is not None]
            )
            self.model.zero_grad(set_to_none=True)
            values = {name: float(value.detach()) for name, value in losses.items()}
            return {**values, "norm": float(norm)}

        yield train
        set_checkpointing(self.model, False)

    def compare(self, switches: Published, batches: int) -> dict[str, float]:
        """Largest relative gaps of losses and gradient norms, in float32 and without dropout."""
        config = self.config
        self.config = dataclasses.replace(
            config, trainer=dataclasses.replace(config.trainer, precision="fp32")
        )
        self.model.train()
        self.model.features.config = dataclasses.replace(config.company, dropout=0.0)
        gaps = {"loss": 0.0, "gradient": 0.0}
        start = {name: value.clone() for name, value in self.model.state_dict().items()}
        warm = self.model.quantizer
        for number in range(batches):
            found = []
            for way in (NONE, switches):
                self.model.load_state_dict(start)
                warm.step.fill_(config.quantizer.warmup_steps + 1)  # codes count
                with no_dropout(self.model), self.trained_with(way) as train:
                    found.append(train(number))
            ours, theirs = found
            for name, value in ours.items():
                kind = "gradient" if name == "norm" else "loss"
                gap = abs(value - theirs[name]) / max(abs(value), 1e-6)
                gaps[kind] = max(gaps[kind], gap)
        self.model.load_state_dict(start)
        self.config = config
        return gaps


@contextlib.contextmanager
def no_dropout(model: TokenizerModel) -> Iterator[None]:
    """All dropout off: masks of other shapes would be other masks."""
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    rates = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    yield
    for layer, rate in zip(layers, rates, strict=True):
        layer.p = rate


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call: the processor's own where one thread does all of it."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def measure_training(bench: Bench, ways: dict[str, Published], repeats: int) -> dict[str, Any]:
    """Medians of items per second, the ways taking turns on every batch."""
    bench.model.train()
    times: dict[str, list[float]] = {name: [] for name in ways}
    on_gpu = bench.device.type == "cuda"
    peaks = dict.fromkeys(ways, 0.0) if on_gpu else {}
    items = len(bench.batches(0).rows)
    for number in range(-1, repeats):
        for name, switches in ways.items():
            with bench.trained_with(switches) as train:
                if on_gpu:
                    torch.cuda.reset_peak_memory_stats()
                seconds = timed(lambda: train(max(number, 0)), bench.device)  # noqa: B023
                if on_gpu:
                    peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() / 2**30)
            if number >= 0:
                times[name].append(seconds)
    rates = {name: items / statistics.median(values) for name, values in times.items()}
    return {"items_per_batch": items, "items_per_s": rates, "peak_gib": peaks}


def measure_encoding(bench: Bench, repeats: int, at_once: int, work: Path) -> dict[str, float]:
    """Items per second from words and pictures on disk to codes.

    `ours_new` are items never seen; `ours`, items whose picture features training has kept, as the
    catalogue has that it is trained on. `published` encodes positives as in training;
    `published_read` only reads them, as the published script does.
    """
    bench.model.eval()
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(bench.items))[: 4 * at_once]
    texts = [bench.texts[row] for row in rows]
    paths = [bench.paths[row] for row in rows]
    reference = bench.way(Published())
    positives = bench.batches.neighbours.draw(rows, rng).astype(np.int64)

    def ours(cache: str) -> None:
        os.environ[CACHE_VARIABLE] = cache  # the first, untimed round fills it, as training does
        with torch.no_grad():
            items = bench.tokenizer.read(texts, paths)
            states = bench.tokenizer.states(items)
            bench.model.quantizer.nearest(states.to(bench.device))

    def theirs(encoded: bool) -> None:
        with torch.no_grad():
            for start in range(0, len(rows), at_once):
                part = slice(start, start + at_once)
                reference.encode(rows[part], positives[part], encoded=encoded)

    ways: dict[str, Callable[[], None]] = {
        "ours": lambda: ours(str(work / "kept")),
        "ours_new": lambda: ours(""),
        "published": lambda: theirs(True),
        "published_read": lambda: theirs(False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, repeats):
        for name, way in ways.items():
            seconds = timed(way, bench.device)
            if number >= 0:
                times[name].append(seconds)
    return {name: len(rows) / statistics.median(values) for name, values in times.items()}


def times_faster(rates: dict[str, float]) -> dict[str, float]:
    """How many times the items per second of each published way each of ours reaches."""
    return {
        f"{ours} / {theirs}": rates[ours] / rates[theirs]
        for ours in ("ours", "ours_new")
        for theirs in ("published", "published_read")
    }


def big_backbone(folder: Path, domain: Domain, layers: int) -> PretrainedBackboneConfig:
    """Qwen2-VL-2B's architecture at random weights, with a small vocabulary's text tokenizer."""
    from transformers import Qwen2VLConfig, Qwen2VLModel

    from utgrec.tokenizer.tiny import TinyBackboneConfig, create_tiny_backbone

    shape = KNOWN["Qwen/Qwen2-VL-2B-Instruct"]
    create_tiny_backbone(folder, domain.catalog.texts, [], TinyBackboneConfig(picture_tokens=64))
    small = Qwen2VLConfig.from_pretrained(folder)
    text = small.text_config.to_dict() | {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": shape.vocabulary,
        "layer_types": None,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
        },
    }  # fmt: skip
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": shape.hidden, "num_heads": 16}
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={**vision, "mlp_ratio": 4},
        **{name: getattr(small, name) for name in ids},
    )
    torch.manual_seed(0)
    Qwen2VLModel(config).to(torch.bfloat16).save_pretrained(folder)
    return PretrainedBackboneConfig(name=str(folder))


def main() -> None:
    """Compare, measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["tiny", "qwen2-vl-2b"], default="tiny")
    parser.add_argument("--layers", type=int, default=28, help="of qwen2-vl-2b")
    parser.add_argument("--items", type=int, default=1500, help="items of the simulated shop")
    parser.add_argument("--batch", type=int, default=128, help="items of a batch")
    parser.add_argument("--repeats", type=int, default=7, help="timed batches of each way")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--each", action="store_true", help="also every switch by itself")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    quiet_transformers()
    if arguments.model != "tiny" and not torch.cuda.is_available() and arguments.layers > 4:
        raise SystemExit("no GPU here: qwen2-vl-2b was not measured (try --layers 2 to see it run)")
    with tempfile.TemporaryDirectory(prefix="utgrec-speed-") as folder:
        work = Path(folder)
        size = 112 if arguments.model == "tiny" else 224
        market = MarketplaceConfig(
            shops=("kitchen",), items_per_shop=arguments.items, users_per_shop=3000,
            picture_size=size,
        )  # fmt: skip
        domain = Domain.open(write_marketplace(work / "market", market)[0])
        config = dataclasses.replace(find_recipe("tiny").tokenizer, batch_size=arguments.batch)
        if arguments.model != "tiny":
            backbone = big_backbone(work / "big", domain, arguments.layers)
            config = dataclasses.replace(config, backbone=backbone)
        (work / "made").mkdir()
        bench = Bench(config, domain, work / "made")
        gaps = bench.compare(Published(), 2)
        print("largest relative gaps of losses and gradients:", gaps, flush=True)
        if arguments.model == "tiny" and (
            gaps["loss"] > LOSS_GAP or gaps["gradient"] > GRADIENT_GAP
        ):
            raise SystemExit(f"the two ways do not compute the same: {gaps}")
        ways = {"ours": NONE, "published": Published()}
        if arguments.each:
            ways |= {
                field.name: dataclasses.replace(NONE, **{field.name: True})
                for field in dataclasses.fields(Published)
            }
        training = measure_training(bench, ways, arguments.repeats)
        encoding = measure_encoding(bench, max(2, arguments.repeats // 2), arguments.batch, work)
        result: dict[str, Any] = {
            "machine": machine(),
            "command": "python benchmarks/tokenizer_speed.py"
            + "".join(f" {word}" for word in sys.argv[1:]),
            "settings": {name: value for name, value in vars(arguments).items() if name != "out"},
            "gaps": gaps,
            "training": {
                **training,
                "times_published": training["items_per_s"]["ours"]
                / training["items_per_s"]["published"],
            },
            "encoding": {
                "items_per_s": encoding,
                "times_published": times_faster(encoding),
            },
            "peak_memory_mib": round(peak_memory_mib()),
            "on_a_gpu": "not measured",
        }
        if torch.cuda.is_available():
            estimate = estimate_tokenizer(config, [domain], tflops=1.0)
            done = training["items_per_s"]["ours"] * estimate.gflop_per_item / 1e3  # TFLOP/s
            result["on_a_gpu"] = {"tflops": done, "device": torch.cuda.get_device_name()}
            peak = estimate_tokenizer(config, [domain]).tflops / UTILISATION
            result["on_a_gpu"]["utilisation"] = done / peak
    print(json.dumps({key: result[key] for key in ("training", "encoding", "on_a_gpu")}, indent=1))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
