"""A run that was killed again and again ends as the run that nobody touched, bit for bit."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from mini_run import contents, mini_domains
from utgrec import storage


class Attempts:
    """Starts runs that are killed on the way."""

    def __init__(self, process: subprocess.Popen[str], domains: list[Path]) -> None:
        self.process = process
        self.domains = domains

    def __call__(
        self,
        out: Path,
        *,
        after_s: float | None = None,
        rename: int | None = None,
        base: Path | None = None,
    ) -> dict:
        """One attempt: whether it was killed, and the training steps that it reported.

        On the first domain; with a `base` that run is adapted to the second one.
        """
        order = {
            "out": str(out),
            "domains": [str(self.domains[0 if base is None else 1])],
            "base": None if base is None else str(base),
            "after_s": after_s,
            "rename": rename,
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["killed"] or answer["status"] == 0, "the run failed by itself; see stderr"
        return answer


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """A process that has imported everything; each attempt is a fork of it."""
    domains = mini_domains(tmp_path_factory.mktemp("shops"))
    program = Path(__file__).with_name("killed_runs.py")
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield Attempts(process, domains)
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="module")
def whole(attempts, tmp_path_factory):
    """The contents of the run that nobody touched, and its training steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    answer = attempts(out)
    assert not answer["killed"]
    return contents(out), [tuple(step) for step in answer["steps"]]


def assert_same(out: Path, whole: dict[str, str]) -> None:
    """All files are equal, and nothing hidden is left behind."""
    found = contents(out)
    assert found.keys() == whole.keys()
    assert [name for name in found if found[name] != whole[name]] == []
    assert [path.name for path in out.rglob(".*")] == []


def test_the_untouched_run_did_all_steps(whole):
    _, steps = whole
    assert steps == [
        *(("Training the tokenizer", step) for step in range(1, 6)),
        *(("Training the recommender", step) for step in range(1, 7)),
    ]


def test_an_equal_run_is_equal(attempts, whole, tmp_path):
    attempts(tmp_path / "run")
    assert_same(tmp_path / "run", whole[0])


def test_kills_at_any_time(attempts, whole, tmp_path):
    """Moments are seeded; what happens at them depends on the machine, and must not matter."""
    out, delays = tmp_path / "run", random.Random(5)
    kills = sum(attempts(out, after_s=delays.uniform(0.02, 0.7))["killed"] for _ in range(6))
    assert kills >= 2
    attempts(out)
    assert_same(out, whole[0])


def test_kills_at_renames(attempts, whole, tmp_path):
    """Files come to be by renames, so these are the moments that matter; they are exact."""
    out, choice = tmp_path / "run", random.Random(5)
    everything: list[list[tuple[str, int]]] = []
    for attempt in range(60):
        number = choice.randint(2, 12) * choice.choice([-1, 1])
        answer = attempts(out, rename=-1 if attempt == 0 else number)
        everything.append([tuple(step) for step in answer["steps"]])
        if not answer["killed"]:
            break
    assert not answer["killed"]
    assert len(everything) > 6
    assert_same(out, whole[0])
    # A kill costs no more than the step it came in: the next attempt goes on from there.
    order = {step: place for place, step in enumerate(whole[1])}
    told = [[order[step] for step in steps] for steps in everything if steps]
    assert len(told) > 4
    for earlier, later in itertools.pairwise(told):
        assert later[0] in (earlier[-1], earlier[-1] + 1)
    assert {place for places in told for place in places} == set(order.values())


def test_an_adaptation_that_was_killed_ends_as_the_untouched_one(attempts, tmp_path):
    attempts(tmp_path / "base")
    base = tmp_path / "base"
    answer = attempts(tmp_path / "whole", base=base)
    steps = [tuple(step) for step in answer["steps"]]
    assert steps == [
        *(("Training the tokenizer", step) for step in range(1, 5)),
        *(("Training the recommender", step) for step in range(1, 5)),
    ]
    out, choice, kills = tmp_path / "run", random.Random(3), 0
    for _ in range(40):
        number = choice.randint(5, 12) * choice.choice([-1, 1])
        if not attempts(out, rename=number, base=base)["killed"]:
            break
        kills += 1
    assert 2 < kills < 40
    assert_same(out, contents(tmp_path / "whole"))


def test_a_finished_run_is_left_alone(attempts, tmp_path):
    out = tmp_path / "run"
    attempts(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert attempts(out)["steps"] == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert storage.read_manifest(out / "recommender", "recommender").measured["wall_s"] > 0
