"""Several processes behind one port: one catalogue, one copy of the weights, one set of figures."""

import copy
import json
import os
import re
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import torch
from programs import children, program

from utgrec.decoding import LeanCausal
from utgrec.errors import BadConfig, CorruptFile, InputError
from utgrec.recommender.causal import CausalRecommender, CausalSizes
from utgrec.recommender.vocabulary import Vocabulary
from utgrec.serving.peers import Peers
from utgrec.serving.shared import share_module, share_weights
from utgrec.serving.starting import ServerSettings, check_settings


class TestSharedWeights:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        vocabulary = Vocabulary(root_size=40, leaf_size=80, code_length=3, domains=("shop",))
        return CausalRecommender(CausalSizes(width=64, trunk_layers=2), vocabulary).eval()

    def test_answers_stay_and_two_holders_use_one_file(self, model, tmp_path):
        tokens = torch.tensor([[3, 4, 60, 61, 1]])
        mask = torch.ones_like(tokens)
        one, other = LeanCausal(model), LeanCausal(model)
        before = one.start(tokens, mask).states
        path = share_weights(one, tmp_path)
        assert share_weights(other, tmp_path) == path
        assert list(tmp_path.iterdir()) == [path]
        assert path.stat().st_size > 100_000
        for lean in (one, other):
            # Not bit for bit: where a matrix begins in memory decides how it is summed.
            torch.testing.assert_close(lean.start(tokens, mask).states, before)
        assert _mapped(path) >= path.stat().st_size // 2

    def test_tensors_are_found_wherever_they_are(self, tmp_path):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(40, 40), torch.nn.BatchNorm1d(300))
        tensor = torch.randn(40, 40)
        nested = {"a": [tensor, (tensor, "text")], "network": network, "small": torch.zeros(3)}
        before = [tensor.clone(), network[0].weight.detach().clone()]
        path = share_weights(nested, tmp_path)
        assert path.stat().st_size < 3 * 40 * 40 * 4  # the same tensor is kept once
        begin, end = _span(path)
        for found in (nested["a"][0], nested["a"][1][0], network[0].weight, network[1].weight):
            assert begin <= found.data_ptr() < end
        assert torch.equal(nested["a"][0], before[0]) and torch.equal(network[0].weight, before[1])

    def test_a_network_computes_the_same_from_shared_weights(self, model, tmp_path):
        before, other = model.state_dict()["head.weight"].clone(), copy.deepcopy(model)
        items = torch.randint(2, 40, (1, 4, 3))
        states = model.read(torch.tensor([125]), items)
        path = share_module(model, tmp_path)
        torch.testing.assert_close(model.read(torch.tensor([125]), items), states)
        assert torch.equal(model.head.weight, before)
        assert share_module(other, tmp_path) == path
        assert _mapped(path) > 0

    def test_other_weights_get_another_file(self, model, tmp_path):
        first = share_weights(LeanCausal(model), tmp_path)
        with torch.no_grad():
            model.head.weight[0, 0] += 1
        assert share_weights(LeanCausal(model), tmp_path) != first

    def test_without_tensors_there_is_no_file(self, tmp_path):
        assert share_weights({"a": [1, (torch.zeros(3),)]}, tmp_path) is None
        assert not list(tmp_path.iterdir())


def _span(path: Path) -> tuple[int, int]:
    """Where a file begins and ends in this process's memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(str(path))]
    return min(int(b, 16) for b, _ in spans), max(int(e, 16) for _, e in spans)


def _mapped(path: Path) -> int:
    """Bytes of a file that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(str(path))]
    return sum(int(end, 16) - int(begin, 16) for begin, end in spans)


class TestPeers:
    def test_waiting_ends_when_all_are_there(self, tmp_path):
        (tmp_path / str(os.getppid())).write_text("1")
        peers = Peers(tmp_path, longest_wait_s=10)
        peers.announce(2)
        assert (tmp_path / str(os.getpid())).read_text() == "2"
        started = time.monotonic()
        threading.Timer(0.2, lambda: (tmp_path / str(os.getppid())).write_text("2")).start()
        assert peers.wait(lambda: 2)
        assert 0.15 < time.monotonic() - started < 5

    def test_who_never_comes_is_waited_for_in_vain_but_not_for_ever(self, tmp_path):
        (tmp_path / str(os.getppid())).write_text("1")
        assert not Peers(tmp_path, longest_wait_s=0.1).wait(lambda: 2)

    def test_the_dead_are_not_waited_for(self, tmp_path):
        (tmp_path / "4194304").write_text("1")  # above the largest process id of Linux
        (tmp_path / ".9.partial").write_text("1")
        peers = Peers(tmp_path, longest_wait_s=10)
        peers.announce(2)
        assert peers.wait(lambda: 2)
        assert {path.name for path in tmp_path.iterdir()} == {str(os.getpid()), ".9.partial"}
        peers.leave()
        peers.leave()
        assert {path.name for path in tmp_path.iterdir()} == {".9.partial"}


class TestSettings:
    def test_what_is_broken_is_told_before_processes_start(self, store, tmp_path):
        run = str(store.run.path)
        check_settings(ServerSettings(run=run))
        with pytest.raises(InputError, match="there is no file"):
            check_settings(ServerSettings(run=run, keys=str(tmp_path / "none")))
        (tmp_path / "broken").write_bytes(b"no database, just text that is long enough " * 30)
        with pytest.raises(CorruptFile):
            check_settings(ServerSettings(run=run, users=str(tmp_path / "broken")))
        with pytest.raises(BadConfig, match="needs a run folder"):
            ServerSettings(run="")


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    """Two processes on a copy of the run."""
    run = tmp_path_factory.mktemp("workers") / "run"
    shutil.copytree(trained, run)
    with program(run, "--workers", "2", "--json") as (server, url):
        yield server, url, run


def get(url, path):
    """An answer over a connection of its own, so that any of the processes may give it."""
    return httpx2.get(f"{url}{path}", timeout=60)


def workers(server):
    """Process ids that log lines and files of the server are about."""
    return [pid for pid in children(server.pid) if _is_worker(pid)]


def _is_worker(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_change_is_seen_by_all_with_the_answer(served):
    _, url, _ = served
    item = {"item_id": "W1", "title": "Blue cup", "price": 3}
    made = httpx2.post(f"{url}/v1/items", json={"items": [item]}, timeout=60).json()
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: get(url, "/readyz").json()["generation"], range(40)))
    assert set(numbers) == {made["generation"]}
    for number in (1, made["generation"]) * 3:
        body = {"activate": number}
        assert httpx2.post(f"{url}/v1/generations", json=body, timeout=60).status_code == 200
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda _: get(url, "/v1/items/W1").status_code, range(12)))
        assert set(seen) == {404 if number == 1 else 200}


def test_both_answer_and_figures_are_those_of_both(served):
    server, url, run = served
    sent = 0
    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: get(url, "/healthz"), range(20)))
        sent += 20
        lines = (run / "serve.log").read_text().splitlines()
        logged = [json.loads(line) for line in lines if line.startswith("{")]
        answered = {line["process"] for line in logged if line.get("route") == "/healthz"}
        if len(answered) == 2:
            break
    assert answered == set(workers(server))
    of_both = r'utgrec_requests_total\{method="GET",route="/healthz",status="200"\} (\d+)'
    until = time.monotonic() + 20  # a process counts an answer once it has given it
    while time.monotonic() < until:
        counted = int(re.search(of_both, get(url, "/metrics").text)[1])
        if counted == sent:
            break
    assert counted == sent


def test_the_weights_are_in_memory_once(served):
    server, _, _ = served
    maps = []
    for pid in workers(server):
        text = Path(f"/proc/{pid}/maps").read_text()
        found = set(re.findall(r"/\S*/utgrec-\S+/weights/[0-9a-f]{64}\.safetensors", text))
        maps.append(found)
    one, other = maps
    assert len(one & other) == 2  # for searching, and the network itself


def test_events_of_both_go_into_one_history(served):
    _, url, _ = served
    first = "KIT00001"

    def send(number):
        event = {"event_id": f"e{number // 2}", "user_id": "u", "item_id": first, "timestamp": 1}
        return httpx2.post(f"{url}/v1/events", json={"events": [event]}, timeout=60).json()["new"]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(send, range(40))) == 20
    assert len(get(url, "/v1/users/u").json()["history"]) == 20


@pytest.mark.slow
def test_a_killed_one_is_replaced(served):
    server, url, _ = served
    before = set(workers(server))
    killed = min(before)
    os.kill(killed, signal.SIGSTOP)
    time.sleep(2)  # now its parent waits for an answer that never comes
    os.kill(killed, signal.SIGKILL)
    until = time.monotonic() + 30
    while killed in (now := set(workers(server))) or len(now) < 2:
        assert time.monotonic() < until
        time.sleep(0.1)
    answers = [get(url, "/readyz").status_code for _ in range(5)]
    assert answers == [200] * 5


def test_stopping_is_clean(served):
    """The last one: it stops the server."""
    server, _, run = served
    server.send_signal(signal.SIGTERM)
    out, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    assert json.loads(out)["stopped"] is True
    left = re.search(r"/\S*/utgrec-[^/\s]+/", (run / "serve.log").read_text())
    assert left is None or not Path(left[0]).exists()
