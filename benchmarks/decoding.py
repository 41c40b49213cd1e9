"""How many users per second beam search serves, beside transformers' own `generate`.

    python benchmarks/decoding.py --threads 1
    python benchmarks/decoding.py --threads 2
    python benchmarks/decoding.py --device cuda --users 1024

One recommender with random weights (T5, width 128, 4 heads × 64, feed-forward 512, 4 + 4 layers), a
random catalogue of items of 3 codes, histories of 20 items. All ways of one comparison run in this
process in turn, several times; figures are medians. `generate` walks a trie of dictionaries through
`prefix_allowed_tokens_fn`, as published code does; at beam 50 it gets 128 users at once, since 256
take more than 8 GB. In batches of 16 it is faster per user, which the part `reference` measures.
The machine's peak is that of products of two square matrices, measured in turn with the rest.
Results go to `benchmarks/results/decoding.json`, one entry per device and number of threads. On a
processor without instructions for bfloat16, where it is of no use, everything is in float32.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from machine_facts import machine
from made_searches import mixed_searches
from turns import Taken, Way, take_turns
from utgrec.decoding import (
    AllowedItems,
    BeamSearch,
    CodeTrie,
    ItemSet,
    LeanCausal,
    LeanT5,
    ListColumn,
    ValueColumn,
)
from utgrec.decoding.kernels import TorchKernels
from utgrec.precision import multiplies_bf16
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.vocabulary import END, PAD, Vocabulary

RESULTS = Path(__file__).parent / "results" / "decoding.json"
HISTORY_ITEMS, K, SIDE = 20, 10, 1536
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MILLION = 1_000_000
_PRODUCTS = 20
MOST_SEQUENCES = 6400  # users × beams that `generate` gets at once; 5 GB
PARTS = ("decoding", "reference", "decoder-only", "mixed", "million", "eight bits")


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
    sizes = np.array(vocabulary.code_sizes)
    rng = np.random.default_rng(0)
    numbers = np.unique(rng.integers(0, sizes.prod(), items * 9 // 8 + 100))
    numbers = rng.permutation(numbers)[:items]
    assert len(numbers) == items, "the codebooks are too small for so many items"
    return torch.from_numpy(np.stack(np.unravel_index(numbers, sizes), axis=1))


def make_histories(vocabulary: Vocabulary, codes: Tensor, users: int) -> Tensor:
    """Token ids of full histories: the domain, items, the end. (B, S)"""
    items = vocabulary.to_tokens(codes[torch.randint(len(codes), (users, HISTORY_ITEMS))])
    domain = torch.full((users, 1), vocabulary.domain_token("a"))
    return torch.cat([domain, items.flatten(1), torch.full((users, 1), END)], dim=1)


def dict_generate(model: Any, vocabulary: Vocabulary, codes: Tensor) -> Callable[..., Any]:
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
            return_dict_in_generate=True,
            output_scores=True,
        )

    return decode


def multiply(dtype: torch.dtype, device: str) -> Way:
    """A product of two square matrices of the shape that the peak is measured with."""
    left, right = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    return Way(lambda: left @ right, 1)


def flops_per_user(config: Any, length: int, beam: int, codes: int) -> float:
    """Floating-point operations that one user needs, products of matrices alone."""
    width, inner, feed = config.d_model, config.num_heads * config.d_kv, config.d_ff
    layers, writers = config.num_layers, config.num_decoder_layers
    reader = 4 * width * inner + 2 * width * feed + 2 * length * inner  # per token and layer
    first = 3 * width * inner  # looked up for the first layer, which reads embeddings
    total = length * (layers * reader - first + writers * 2 * width * inner)
    writer = 6 * width * inner + 2 * width * feed + 2 * length * inner
    per_token = writers * writer - first + width * config.vocab_size
    return 2.0 * (total + (1 + (codes - 1) * beam) * per_token)


class Bench:
    """The models, catalogues and options that all comparisons share."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device, self.repeats = options, options.device, options.repeats
        self.vocabulary = Vocabulary(root_size=256, leaf_size=512, code_length=3, domains=("a",))
        self.model = make_model(self.vocabulary).to(self.device)
        self.codes = make_catalogue(self.vocabulary, options.items)
        self.histories = make_histories(self.vocabulary, self.codes, options.users)
        self.histories = self.histories.to(self.device)
        self.trie = CodeTrie.build(self.codes).to(self.device)
        began = time.perf_counter()
        self.dtypes = {
            name: dtype
            for name, dtype in PRECISIONS.items()
            if dtype == torch.float32 or multiplies_bf16(self.device)
        }
        self.fastest = list(self.dtypes)[-1]
        self.lean = {name: LeanT5(self.model, dtype) for name, dtype in self.dtypes.items()}
        self.warm_up_s = time.perf_counter() - began  # compiles the kernels if they are not there
        config = self.model.config
        for name, dtype in self.dtypes.items():
            plain = TorchKernels(dtype, config.num_heads, config.layer_norm_epsilon)
            self.lean[f"{name} by torch"] = LeanT5(self.model, dtype, kernels=plain)

    def search(self, model: Any, trie: CodeTrie) -> BeamSearch[Any]:
        """A search with the chunk that was asked for."""
        return BeamSearch(model, self.vocabulary, trie, chunk=self.options.chunk)

    def ours(self, search: BeamSearch[Any], users: int, beam: int, **given: Any) -> Way:
        """Decoding as this package does it."""
        ids = self.histories[:users]
        return Way(lambda: search.search(ids, torch.ones_like(ids), k=K, beam=beam, **given), users)

    def kernels(self) -> dict[str, Any]:
        """What computes the layers, and how long it took to have it."""
        names = {name: type(lean.kernels).__name__ for name, lean in self.lean.items()}
        return {"used": names, "warm_up_s": self.warm_up_s}

    def turns(self, ways: dict[str, Way]) -> dict[str, Taken]:
        """Time them, and the products of matrices with them."""
        peaks = {
            f"peak {name}": multiply(dtype, self.device) for name, dtype in self.dtypes.items()
        }
        return take_turns({**ways, **peaks}, self.repeats, self.device)

    def beside_generate(self, batch: int, beam: int) -> list[dict[str, Any]]:
        """Users per second of both precisions, and of generate."""
        few = min(batch, MOST_SEQUENCES // beam)
        decode = dict_generate(self.model, self.vocabulary, self.codes)
        ways = {"generate": Way(lambda: decode(self.histories[:few], beam), few)}
        for name, lean in self.lean.items():
            ways[name] = self.ours(self.search(lean, self.trie), batch, beam)
        taken = self.turns(ways)
        flops = flops_per_user(self.model.config, self.histories.shape[1], beam, 3)
        rows = []
        for name, way in ways.items():
            wall, cpu = taken[name]
            slow = taken["generate"]
            row = {"way": name, "batch": batch, "beam": beam, "timed_users": way.users}
            row |= {"users_per_s": way.users / wall, "ms": 1000 * wall}
            row |= {"cpu_ms_per_user": 1000 * cpu / way.users}
            row["times_generate"] = (slow.wall / few) / (wall / way.users)
            row["times_generate_cpu"] = (slow.cpu / few) / (cpu / way.users)
            if name != "generate":
                peak = 2 * SIDE**3 / taken[f"peak {name.split()[0]}"].wall
                row |= {"peak_gflops": peak / 1e9, "mflop_per_user": flops / 1e6}
                row["share_of_peak"] = flops * way.users / wall / peak
            rows.append(row)
        return rows

    def reference(self, beam: int) -> list[dict[str, Any]]:
        """What a user costs `generate` in small and large batches."""
        decode = dict_generate(self.model, self.vocabulary, self.codes)
        sizes = {self.options.few, min(self.options.users, MOST_SEQUENCES // beam)}
        ways = {size: Way(partial(decode, self.histories[:size], beam), size) for size in sizes}
        return [
            {"batch": size, "beam": beam, "users_per_s": size / one.wall}
            | {"cpu_ms_per_user": 1000 * one.cpu / size}
            for size, one in take_turns(ways, self.repeats, self.device).items()
        ]

    def same_as_generate(self, beam: int) -> dict[str, Any]:
        """Whether both find the same items with the same scores, in float32."""
        ids = self.histories[: self.options.few]
        output = dict_generate(self.model, self.vocabulary, self.codes)(ids, beam)
        hits = self.search(self.lean["float32"], self.trie).search(
            ids, torch.ones_like(ids), k=K, beam=beam
        )
        tokens = self.vocabulary.to_tokens(self.codes.to(self.device))
        theirs = output.sequences[:, 1:].view(len(ids), K, -1)
        return {
            "beam": beam,
            "users": len(ids),
            "same_items": bool((tokens[hits.items] == theirs).all()),
            "largest_difference": float(
                (hits.scores.flatten() - output.sequences_scores).abs().max()
            ),
        }

    def larger_catalogue(self, beam: int) -> dict[str, Any]:
        """What a million items cost, and filters on them."""
        codes = make_catalogue(self.vocabulary, MILLION)
        built = take_turns(
            {"build": Way(lambda: CodeTrie.build(codes.short().numpy()), 1)}, self.repeats, "cpu"
        )
        trie = CodeTrie.build(codes).to(self.device)
        searches = {
            name: self.search(self.lean[self.fastest], one)
            for name, one in (("ten thousand", self.trie), ("a million", trie))
        }
        users = min(64, self.options.users)
        taken = self.turns({name: self.ours(one, users, beam) for name, one in searches.items()})
        return {
            "beam": beam,
            "build_s": built["build"].wall,
            "megabytes": trie.nbytes / 1e6,
            "cost_of_a_million": taken["a million"].cpu / taken["ten thousand"].cpu - 1,
            "filters": self.filters(trie, searches["a million"], beam),
        }

    def mixed(self, beam: int) -> list[dict[str, Any]]:
        """What item vectors and companions beside the codes cost, in small and large catalogues."""
        rows = []
        for items in (self.options.items, MILLION):
            codes = make_catalogue(self.vocabulary, items)
            searches = mixed_searches(self.vocabulary, codes)
            histories = make_histories(self.vocabulary, codes, min(64, self.options.users))
            mask = torch.ones_like(histories)
            ways = {
                (name, users): Way(
                    partial(search.search, histories[:users], mask[:users], k=K, beam=beam), users
                )
                for name, search in searches.items()
                for users in (len(histories), 1)
            }
            taken = take_turns(ways, self.repeats, "cpu")
            rows += [
                {"search": name, "items": items, "batch": users, "beam": beam}
                | {
                    "ms_per_user": 1000 * one.wall / users,
                    "cpu_ms_per_user": 1000 * one.cpu / users,
                }
                | {"peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
                for (name, users), one in taken.items()
            ]
        return rows

    def filters(self, trie: CodeTrie, search: BeamSearch[Any], beam: int) -> list[dict[str, Any]]:
        """A request of one user on a million items, with filters made anew for every request."""
        rng = np.random.default_rng(1)
        price = ValueColumn(trie, rng.gamma(2.0, 20.0, MILLION).astype(np.float32))
        stock = ValueColumn(trie, rng.random(MILLION) < 0.8)
        owners = np.concatenate([np.arange(MILLION), rng.integers(0, MILLION, MILLION // 2)])
        category = ListColumn(trie, rng.integers(0, 300, len(owners)).astype(np.int32), owners)
        names = rng.integers(0, MILLION, 1000)
        deny = rng.integers(0, MILLION, 100)
        seen = rng.integers(0, MILLION, (1, HISTORY_ITEMS)).tolist()
        bounds = iter(np.linspace(20, 60, 10_000).tolist())

        def of(make: Callable[[], ItemSet]) -> Way:
            def call() -> Any:
                allowed = AllowedItems(trie, make())
                return self.ours(search, 1, beam, allowed=allowed).call()

            return Way(call, 1)

        ways = {
            "none": self.ours(search, 1, beam),
            "category": of(lambda: category.any_of([int(rng.integers(0, 300))])),
            "price": of(lambda: price.between(10.0, next(bounds))),
            "in stock": of(lambda: stock.any_of([True])),
            "allow 1000": of(lambda: ItemSet.of_items(trie, names)),
            "deny 100": of(lambda: ~ItemSet.of_items(trie, deny)),
            "seen": self.ours(search, 1, beam, exclude=seen),
            "all of category, price, stock, deny": of(
                lambda: (
                    category.any_of([int(rng.integers(0, 300))])
                    & price.between(10.0, next(bounds))
                    & stock.any_of([True])
                    & ~ItemSet.of_items(trie, deny)
                )
            ),
        }
        taken = take_turns(ways, 5 * self.repeats, self.device)
        none = taken["none"]
        return [
            {"filter": name, "ms": 1000 * one.wall, "share_cpu": 1 - none.cpu / one.cpu}
            for name, one in taken.items()
            if one.cpu > 0
        ]

    def eight_bits(self, rows: int) -> list[dict[str, Any]]:
        """Products of a layer: these kernels' beside those of torch with eight-bit numbers.

        The latter find the scale of each input anew, as a search would have to.
        """
        config, found = self.model.config, []
        width, feed = config.d_model, config.d_ff
        for outputs, inputs in ((feed, width), (width, feed), (width, width)):
            weight, x = torch.randn(outputs, inputs), torch.randn(1, rows, inputs)
            ways = {}
            for name, dtype in self.dtypes.items():
                kernels, given = self.lean[name].kernels, x.to(dtype)
                matrix, hidden = kernels.matrix(weight), torch.zeros(1, rows, outputs)
                ways[name] = Way(partial(_many, partial(kernels.add, hidden, given, matrix)), 1)
            scales = weight.abs().amax(dim=1) / 127
            nothing = torch.zeros(outputs, dtype=torch.int64)
            small = torch.quantize_per_channel(weight, scales, nothing, 0, torch.qint8)
            packed = torch.ops.quantized.linear_prepack(small, None)
            ways["int8 by torch"] = Way(
                partial(_many, partial(torch.ops.quantized.linear_dynamic, x[0], packed)), 1
            )
            taken = take_turns(ways, 20 * self.repeats, "cpu")
            flops = 2 * rows * outputs * inputs * _PRODUCTS
            found += [
                {"way": name, "rows": rows, "outputs": outputs, "inputs": inputs}
                | {"gflops": flops / one.wall / 1e9, "gflops_cpu": flops / one.cpu / 1e9}
                for name, one in taken.items()
            ]
        return found

    def decoder_only(self, beam: int) -> list[dict[str, Any]]:
        """Users per second of the decoder-only recommender, of its default sizes."""
        model = CausalRecommender(CausalSizes(), self.vocabulary).to(self.device).eval()
        ways = {
            f"{name} batch {users}": self.ours(
                self.search(LeanCausal(model, dtype), self.trie), users, beam
            )
            for name, dtype in self.dtypes.items()
            for users in {self.options.users, 1}
        }
        taken = self.turns(ways)
        return [
            {"way": name, "beam": beam, "users_per_s": way.users / taken[name].wall}
            | {"cpu_ms_per_user": 1000 * taken[name].cpu / way.users}
            for name, way in ways.items()
        ]


def _many(call: Callable[[], Any]) -> None:
    """The same call some times, as one takes too little time to be measured."""
    for _ in range(_PRODUCTS):
        call()


def _kind(device: str) -> str:
    """What sets a processor apart whose figures are not those of others, for the results."""
    if device != "cpu":
        return ""
    if not multiplies_bf16(device):
        return " without bfloat16"
    return " with AMX" if torch.cpu.get_capabilities().get("amx_bf16", False) else ""


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print some rows as they come."""
    print(title)
    for row in rows:
        cells = (
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
        print("  " + " · ".join(cells), flush=True)


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=256, help="users in one batch")
    parser.add_argument("--few", type=int, default=16, help="users in a small batch of generate")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each kind")
    parser.add_argument("--items", type=int, default=10_000, help="items in the catalogue")
    parser.add_argument("--chunk", type=int, help="users decoded together; the search's own")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; the rest stays"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    began, load = time.strftime("%Y-%m-%d %H:%M"), os.getloadavg()[0]
    bench = Bench(options)
    result: dict[str, Any] = {}
    if "decoding" in options.parts:
        result["same"] = [bench.same_as_generate(beam) for beam in (20, 50)]
        show("beside generate, float32", result["same"])
        result["kernels"], result["decoding"] = bench.kernels(), []
        for batch, beam in ((1, 20), (options.users, 20), (options.users, 50)):
            rows = bench.beside_generate(batch, beam)
            show(f"batch {batch}, beam {beam}", rows)
            result["decoding"] += rows
    if "reference" in options.parts:
        result["reference"] = [row for beam in (20, 50) for row in bench.reference(beam)]
        show("generate, by users in a batch", result["reference"])
    if "decoder-only" in options.parts:
        result["decoder_only"] = bench.decoder_only(50)
        show("decoder-only", result["decoder_only"])
    if "mixed" in options.parts and options.device == "cpu":
        result["mixed"] = bench.mixed(50)
        show("item vectors, companions and contents beside codes", result["mixed"])
    if "eight bits" in options.parts and options.device == "cpu":
        result["eight_bits"] = bench.eight_bits(32 * 50)
        show("products of 32 users at beam 50", result["eight_bits"])
    if "million" in options.parts:
        result["million"] = bench.larger_catalogue(20)
        show("a million items", [{**result["million"], "filters": "below"}])
        show("filters", result["million"]["filters"])

    settings = {key: value for key, value in vars(options).items() if key not in ("out", "parts")}
    facts = {"began": began, "load_before": load, "load_after": os.getloadavg()[0]}
    facts["instructions"] = torch.backends.cpu.get_cpu_capability()
    entries = json.loads(options.out.read_text()) if options.out.is_file() else {}
    entry = entries.setdefault(
        f"{options.device}{_kind(options.device)}, threads {options.threads}", {}
    )
    entry |= {"machine": machine(), "settings": settings, **result}
    entry["measured"] = {**entry.get("measured", {}), **dict.fromkeys(options.parts, facts)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
