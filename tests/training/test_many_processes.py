"""Two processes do what one does: the same losses, weights, codes and figures; also a run that two
began and one finished."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_accelerate_files import environment as launched_with

from mini_program import exact_recipe
from mini_run import mini_domains
from utgrec.catalog import Domain
from utgrec.runs import run_recipe
from utgrec.tokenizer.train import train_tokenizer

TESTS = Path(__file__).parents[1]


def start(
    *arguments: str, count: int = 2, program: str = "mini_program.py", **environment: str
) -> list[tuple[int, str, str]]:
    """Run a program of the tests as several processes; exit code, stdout and stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for number in range(count):
        own = {
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "TOKENIZERS_PARALLELISM": "false",
        }
        running.append(
            subprocess.Popen(
                [sys.executable, str(TESTS / program), *arguments],
                env={**os.environ, **own, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=600) for process in running]
    finally:
        for process in running:
            process.kill()
    return [
        (process.returncode, out, err) for process, (out, err) in zip(running, said, strict=True)
    ]


def losses(folder: Path) -> list[dict[str, float]]:
    """The logged rows of a trained stage."""
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path, stage: str) -> None:
    """Losses and weights of a stage agree as far as sums in another order do."""
    first, second = losses(one / stage), losses(other / stage)
    assert [row.keys() for row in first] == [row.keys() for row in second]
    for row, again in zip(first, second, strict=True):
        for name, value in row.items():
            if name != "kind":
                assert value == pytest.approx(again[name], rel=2e-3, abs=2e-4), (stage, row, name)
    for path in (one / stage).rglob("*.safetensors"):
        ours, theirs = load_file(path), load_file(other / path.relative_to(one))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            gap = (value.double() - theirs[name].double()).abs().max() if value.numel() else 0
            assert float(gap) < 2e-2, (path.name, name, float(gap))


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A miniature shop."""
    return mini_domains(tmp_path_factory.mktemp("market"), shops=("kitchen",))[0]


def test_what_two_began_and_were_told_to_stop_one_finishes(shop, tmp_path):
    """The first six steps are done by two processes, the others by one: the losses are those of a
    run that one process did. SIGTERM comes to the second process only; both stop."""
    config, out = exact_recipe().tokenizer, tmp_path / "begun"
    ended = start(
        "tokenizer", "train", str(shop), "--recipe", "mini", "--out", str(out),
        STOP_AT="5", STOP_RANK="1",
    )  # fmt: skip
    assert [code for code, _, _ in ended] == [143, 143], ended[0][2]
    assert "after step 6 of 8" in ended[0][2]  # the others hear of it with the next step's figures
    assert not out.exists()
    (found,) = (tmp_path / ".begun.work" / "training").glob("step-*")
    assert json.loads((found / "record.json").read_text())["step"] == 6
    train_tokenizer([Domain.open(shop)], config, out)
    train_tokenizer([Domain.open(shop)], config, tmp_path / "alone")
    assert_alike(tmp_path / "alone", out, ".")


@pytest.mark.slow
def test_two_processes_do_the_run_of_one(shop, tmp_path):
    """All stages, the recommender and its validations too."""
    alone, out = tmp_path / "alone", tmp_path / "run"
    run_recipe(exact_recipe(), [shop], alone)
    (code, answer, told), (other, silence, _) = start(
        "run", "mini", str(shop), "--out", str(out), "--json"
    )
    assert (code, other) == (0, 0), told
    assert json.loads(answer)["run"] == str(out) and silence == ""  # one of them answers
    assert_alike(alone, out, "tokenizer")
    assert_alike(alone, out, "recommender")
    assert (out / "report.html").is_file()
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_shards_train_what_one_whole_module_trains(tmp_path):
    """FSDP 2 over gloo: the weights of one process, also when two began and one goes on."""
    program = "training/shard_program.py"
    for folder, count, stop in (("one", 1, ""), ("two", 2, ""), ("cut", 2, "4"), ("cut", 1, "")):
        (tmp_path / folder).mkdir(exist_ok=True)
        ended = start(str(tmp_path / folder), count=count, program=program, STOP_AT=stop)
        assert [code for code, _, _ in ended] == [1 if stop else 0] * count, ended[0][2]
    whole = load_file(tmp_path / "one" / "trained.safetensors")
    for folder in ("two", "cut"):
        found = load_file(tmp_path / folder / "trained.safetensors")
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_shards_train_a_tokenizer_on_a_pretrained_backbone(shop, tmp_path, monkeypatch):
    """FSDP 2 over gloo: frozen layers and adapters in shards, codebooks whole."""
    monkeypatch.syspath_prepend(str(TESTS / "tokenizer"))
    from random_models import write_model

    model = write_model(tmp_path / "model", "qwen2_vl")
    for folder, count in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        arguments = (str(tmp_path / folder), str(shop), str(model))
        ended = start(*arguments, count=count, program="training/shard_program.py")
        assert [code for code, _, _ in ended] == [0] * count, ended[0][2]
    assert_alike(tmp_path / "one", tmp_path / "two", "tokenizer")
    assert (tmp_path / "two" / "tokenizer" / "adapter" / "adapter_config.json").is_file()


def zero(*arguments: str, count: int, **environment: str) -> list[tuple[int, str, str]]:
    """Run with DeepSpeed as the shipped configuration starts it, but for the GPUs."""
    told = launched_with("deepspeed-zero2") if count > 1 else {}
    given = {name: value for name, value in told.items() if name.startswith("ACCELERATE_")}
    given |= {"ACCELERATE_USE_CPU": str(count == 1).lower(), "DS_ACCELERATOR": "cpu"}
    program = "training/zero_program.py"
    return start(*arguments, count=count, program=program, **given, **environment)


NO_DEEPSPEED = pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not installed (docs/scale.md says how)"
)


@pytest.mark.slow
@NO_DEEPSPEED
def test_zero_trains_what_one_process_trains(tmp_path):
    """DeepSpeed ZeRO-2 over gloo: losses and weights of one process, also when two go on from where
    one was, or one from where two were."""
    runs = {
        "one": ((1, ""),), "two": ((2, ""),), "fewer": ((2, "4"), (1, "")),
        "more": ((1, "4"), (2, "")), "again": ((2, "4"), (2, "")),
    }  # fmt: skip
    for folder, attempts in runs.items():
        (tmp_path / folder).mkdir()
        for count, stop in attempts:
            ended = zero(str(tmp_path / folder), count=count, STOP_AT=stop)
            assert [code for code, _, _ in ended] == [1 if stop else 0] * count, ended[0][2]
    whole = load_file(tmp_path / "one" / "trained.safetensors")
    expected = json.loads((tmp_path / "one" / "losses.json").read_text())
    for folder in runs:
        found = load_file(tmp_path / folder / "trained.safetensors")
        assert json.loads((tmp_path / folder / "losses.json").read_text()) == pytest.approx(
            expected, rel=1e-4
        )
        assert found.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@NO_DEEPSPEED
def test_zero_trains_the_tokenizer_of_one_process(shop, tmp_path):
    """Codes are placed and revived meanwhile, which ZeRO's own copy of the weights must hear of."""
    train_tokenizer([Domain.open(shop)], exact_recipe().tokenizer, tmp_path / "alone")
    ended = zero(
        "tokenizer", "train", str(shop), "--recipe", "mini", "--out", str(tmp_path / "two"), count=2
    )
    assert [code for code, _, _ in ended] == [0, 0], ended[0][2]
    assert_alike(tmp_path / "alone", tmp_path / "two", ".")


@pytest.mark.slow
def test_accelerate_launch_with_the_configuration_for_cpus(shop, tmp_path):
    """The shipped file, and the real command line, in two processes."""
    out = tmp_path / "tokenizer"
    configuration = TESTS.parent / "configs" / "accelerate" / "cpu.yaml"
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration),
        str(TESTS / "mini_program.py"), "tokenizer", "train", str(shop), "--recipe", "mini",
        "--out", str(out), "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 8
    train_tokenizer([Domain.open(shop)], exact_recipe().tokenizer, tmp_path / "alone")
    assert_alike(tmp_path / "alone", out, ".")
