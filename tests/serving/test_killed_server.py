"""Kill −9 while items are added, generations exchanged, events kept: nothing promised is lost."""

import os
import shutil
import signal
import threading
import time

import httpx2
import pytest
from fastapi.testclient import TestClient
from programs import program
from small_shops import FakeCoder

from utgrec.serving.changes import CatalogEditor
from utgrec.serving.generations import GenerationStore
from utgrec.serving.starting import ServerSettings, make_app


def until_it_dies(work, done):
    """Do a piece of work again and again until the server is gone; keep what it promised."""
    number = 0
    while True:
        try:
            answer = work(number)
        except httpx2.HTTPError:
            return
        if answer.status_code == 200:
            done.append((number, answer.json()))
        number += 1


def test_what_was_acknowledged_is_there_after_kill_9(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    CatalogEditor(GenerationStore(run), FakeCoder(6, 8)).add([{"item_id": "A", "title": "A"}])
    events, items, active, asked = [], [], [], []
    with program(run) as (server, url), httpx2.Client(base_url=url, timeout=30) as client:

        def keep(number):
            one = {"event_id": f"e{number}", "user_id": "u", "item_id": "A", "timestamp": number}
            return client.post("/v1/events", json={"events": [one]})

        def add(number):
            item = {"item_id": f"N{number}", "title": f"cup {number}"}
            return client.post("/v1/items", json={"items": [item], "activate": False})

        def activate(number):
            return client.post("/v1/generations", json={"activate": 1 + number % 2})

        def recommend(number):
            return client.post("/v1/recommend", json={"history": [], "k": 3})

        jobs = ((keep, events), (add, items), (activate, active), (recommend, asked))
        threads = [threading.Thread(target=until_it_dies, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 60
        while time.monotonic() < until and min(map(len, (events, items, active, asked))) < 3:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(60)
        server.wait(10)
    assert min(map(len, (events, items, active, asked))) >= 3

    app = make_app(ServerSettings(run=str(run)))
    with TestClient(app, base_url="http://localhost") as client:
        ready = client.get("/readyz").json()
        assert ready["status"] == "ready"
        # The generation of the last answer, or the one that was asked for when the server died.
        assert ready["generation"] in (1, 2)
        history = client.get("/v1/users/u").json()["history"]
        kept = {one["timestamp"] for one in history}
        assert {number for number, _ in events} <= kept
        for number, _ in events[-3:]:  # sent again, they are known
            one = {"event_id": f"e{number}", "user_id": "u", "item_id": "A", "timestamp": number}
            again = {"events": [one], "unknown": "skip"}
            answer = client.post("/v1/events", json=again).json()
            assert answer["known"] == 1 or answer["unknown"] == ["A"]  # the first lacks it
        for number, made in items:
            generation = app.state.service.store.open(made["generation"])
            catalog = generation.catalog
            row = generation.rows.codes[catalog.index_of(f"N{number}")]
            assert row.tolist() == made["codes"][f"N{number}"]
        newest = app.state.service.store.open(max(app.state.service.store.numbers))
        codes = {tuple(row) for row in newest.rows.codes.tolist()}
        assert len(codes) == len(newest.rows.codes)
        assert client.post("/v1/recommend", json={"history": []}).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.0, 0.05, 0.2, 0.5])
def test_several_processes_survive_a_kill_of_all(trained, tmp_path, wait_s):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    kept = []
    with program(run, "--workers", "2") as (server, url):

        def keep(number):
            event = {"event_id": f"e{number}", "user_id": "u", "item_id": "KIT00001",
                     "timestamp": number}  # fmt: skip
            return httpx2.post(f"{url}/v1/events", json={"events": [event]}, timeout=30)

        thread = threading.Thread(target=until_it_dies, args=(keep, kept))
        thread.start()
        while not kept:
            assert thread.is_alive()
            time.sleep(0.01)
        time.sleep(wait_s)
        os.killpg(server.pid, signal.SIGKILL)
        thread.join(60)
    with TestClient(make_app(ServerSettings(run=str(run))), base_url="http://localhost") as client:
        history = client.get("/v1/users/u").json()["history"]
        assert {number for number, _ in kept} <= {one["timestamp"] for one in history}
