"""How many users per second beam search serves, beside transformers' own `generate`.

    python benchmarks/decoding.py

One recommender with random weights (T5, width 128, 4 heads × 64, feed-forward 512, 4 + 4 layers), a
random catalogue of 10,000 items of 3 codes, histories of 20 items. Every way of decoding runs in
this process, in turn, several times; the figures are medians. `generate` walks a trie of
dictionaries through `prefix_allowed_tokens_fn`, as published code does; it gets fewer users because
it is slow. Results go to `benchmarks/results/decoding.json`.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from utgrec.decoding import BeamSearch, CodeTrie, LeanT5
from utgrec.recommender.vocabulary import END, PAD, Vocabulary

RESULTS = Path(__file__).parent / "results" / "decoding.json"
HISTORY_ITEMS = 20
K = 10


def make_model(vocabulary: Vocabulary) -> Any:
    """The recommender of the measurement, with random weights."""
    config = transformers.T5Config(
        vocab_size=vocabulary.size,
        d_model=128,
        d_kv=64,
        d_ff=512,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=4,
        decoder_start_token_id=PAD,
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def make_catalogue(vocabulary: Vocabulary, items: int) -> Tensor:
    """Different random codes. (N, L)"""
    sizes = vocabulary.code_sizes
    numbers = torch.randperm(int(torch.tensor(sizes).prod()))[:items]
    return torch.stack(torch.unravel_index(numbers, sizes), dim=1)


def make_histories(vocabulary: Vocabulary, codes: Tensor, users: int) -> Tensor:
    """Token ids of full histories: items, the end, the domain. (B, S)"""
    items = vocabulary.to_tokens(codes[torch.randint(len(codes), (users, HISTORY_ITEMS))])
    tail = torch.tensor([END, vocabulary.domain_token("a")]).expand(users, 2)
    return torch.cat([items.flatten(1), tail], dim=1)


def generate_with_dicts(model: Any, vocabulary: Vocabulary, codes: Tensor) -> Callable[..., Any]:
    """Decoding as published code does it."""
    following: dict[tuple[int, ...], set[int]] = {}
    for row in vocabulary.to_tokens(codes).tolist():
        for depth in range(len(row)):
            following.setdefault(tuple(row[:depth]), set()).add(row[depth])
    tokens = {prefix: sorted(children) for prefix, children in following.items()}

    def decode(input_ids: Tensor, beam: int) -> Any:
        return model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            num_beams=beam,
            num_return_sequences=K,
            max_new_tokens=vocabulary.code_length,
            do_sample=False,
            length_penalty=0.0,
            prefix_allowed_tokens_fn=lambda _, ids: tokens.get(tuple(ids[1:].tolist()), [PAD]),
        )

    return decode


def ours(search: BeamSearch[Any]) -> Callable[..., Any]:
    """Decoding as this package does it."""

    def decode(input_ids: Tensor, beam: int) -> Any:
        return search.search(input_ids, torch.ones_like(input_ids), k=K, beam=beam)

    return decode


def median_seconds(decode: Callable[[], Any], repeats: int) -> float:
    """Median wall time of a call, in seconds, after one call that does not count."""
    decode()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        decode()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_trie(items: int, repeats: int) -> dict[str, float]:
    """Build time and memory of a large catalogue's trie."""
    vocabulary = Vocabulary(root_size=256, leaf_size=512, code_length=3, domains=())
    codes = make_catalogue(vocabulary, items).short().numpy()
    seconds = median_seconds(lambda: CodeTrie.build(codes), repeats)
    return {"items": items, "build_s": seconds, "megabytes": CodeTrie.build(codes).nbytes / 1e6}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=256, help="users in one batch")
    parser.add_argument("--generate-users", type=int, default=16, help="users for generate")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each kind")
    parser.add_argument("--items", type=int, default=10_000, help="items in the catalogue")
    parser.add_argument("--chunk", type=int, default=32, help="users decoded together")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    vocabulary = Vocabulary(root_size=256, leaf_size=512, code_length=3, domains=("a",))
    model = make_model(vocabulary)
    codes = make_catalogue(vocabulary, arguments.items)
    histories = make_histories(vocabulary, codes, arguments.users)
    trie = CodeTrie.build(codes)
    ways: dict[str, tuple[Callable[..., Any], int]] = {
        "generate": (generate_with_dicts(model, vocabulary, codes), arguments.generate_users)
    }
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        search = BeamSearch(LeanT5(model, dtype), vocabulary, trie, chunk=arguments.chunk)
        ways[name] = ours(search), arguments.users

    rows = []
    print(f"{'way':<10} {'beam':>4} {'batch':>5} {'users/s':>9} {'ms/user':>8} {'× generate':>10}")
    for batch in (None, 1):
        for beam in (20, 50):
            baseline = 0.0
            for name, (decode, most) in ways.items():
                users = most if batch is None else batch
                input_ids = histories[:users]
                seconds = median_seconds(lambda: decode(input_ids, beam), arguments.repeats)  # noqa: B023
                speed = users / seconds
                baseline = speed if name == "generate" else baseline
                row = {"way": name, "beam": beam, "batch": users, "users_per_s": speed}
                row["times_generate"] = speed / baseline
                rows.append(row)
                print(
                    f"{name:<10} {beam:>4} {users:>5} {speed:>9.1f} {1000 / speed:>8.2f} "
                    f"{speed / baseline:>10.1f}",
                    flush=True,
                )
    million = measure_trie(1_000_000, arguments.repeats)
    print(f"trie of 1M items: {million['build_s']:.2f} s, {million['megabytes']:.1f} MB")
    settings = {key: value for key, value in vars(arguments).items() if key != "out"}
    result = {"machine": machine(), "settings": settings, "decoding": rows, "trie": million}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
