"""Replicas through a local Ray: the same answers, and changes seen by all of them."""

import shutil
import time

import httpx2
import pytest
from programs import free_port

from utgrec.errors import BadConfig
from utgrec.serving.service import ServiceConfig
from utgrec.serving.starting import ServerSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray_server(trained, tmp_path_factory):
    """Two replicas on a Ray of this test's own; the URL and the run."""
    ray = pytest.importorskip("ray")
    from utgrec.serving.replicas import start_replicas

    run = tmp_path_factory.mktemp("ray") / "run"
    shutil.copytree(trained, run)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    port = free_port()
    settings = ServerSettings(run=str(run), service=ServiceConfig(look_every_s=0.1))
    try:
        start_replicas(settings, 2, "127.0.0.1", port)
        yield f"http://127.0.0.1:{port}", run
    finally:
        from ray import serve

        serve.shutdown()
        ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_replicas_answer_like_one_server(ray_server):
    url, _ = ray_server
    body = {"history": ["KIT00001", "KIT00002"], "k": 5}
    answers = [httpx2.post(f"{url}/v1/recommend", json=body, timeout=60) for _ in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    wrong = httpx2.post(f"{url}/v1/recommend", json={"k": 0}, timeout=60)
    assert wrong.headers["content-type"] == "application/problem+json"
    item = {"item_id": "R1", "title": "Blue cup"}
    made = httpx2.post(f"{url}/v1/items", json={"items": [item]}, timeout=120)
    assert made.json()["generation"] == 2
    until = time.monotonic() + 30
    while time.monotonic() < until:
        seen = [httpx2.get(f"{url}/v1/items/R1", timeout=60).status_code for _ in range(12)]
        if set(seen) == {200}:
            break
    assert set(seen) == {200}
    event = {"event_id": "e", "user_id": "u", "item_id": "R1"}
    sent = [httpx2.post(f"{url}/v1/events", json={"events": [event]}, timeout=60) for _ in range(6)]
    assert sum(answer.json()["new"] for answer in sent) == 1


@pytest.mark.filterwarnings("ignore")
def test_files_of_histories_are_for_one_machine(ray_server, monkeypatch):
    import ray

    from utgrec.serving.replicas import start_replicas

    _, run = ray_server
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": True}])
    with pytest.raises(BadConfig, match="2 machines, which cannot share a file"):
        start_replicas(ServerSettings(run=str(run)), 2, "127.0.0.1", 1)
