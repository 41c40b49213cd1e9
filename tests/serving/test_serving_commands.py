"""The commands that change a catalogue and serve it, typed as a user would."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
from small_shops import jsonl, png
from typer.testing import CliRunner

from utgrec.cli import app


def call(*words, code=0):
    """Run a command; what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def document(*words, code=0):
    """Run a command with --json; its document."""
    return json.loads(call(*words, "--json", code=code).stdout)


def test_a_catalogue_from_new_items_to_a_rollback(store, tmp_path):
    run = store.run.path
    png(tmp_path / "pics" / "c.png")
    new = jsonl(
        tmp_path / "new.jsonl",
        [
            {"item_id": "C1", "title": "Blue cup", "price": 3, "image": "pics/c.png"},
            {"item_id": "C2", "title": "Red cup", "categories": "kitchen > cups"},
        ],
    )
    made = document("catalog", "add", run, new)
    assert (made["generation"], made["active"]) == (2, True)
    assert made["changes"]["added"] == ["C1", "C2"]
    assert made["drift"]["new"] == 2
    prices = jsonl(tmp_path / "prices.jsonl", [{"item_id": "C1", "price": 4}])
    assert "generation 3 serves now: 1 replaced; 62 items" in (
        call("catalog", "replace", run, prices).stdout
    )
    waits = call("catalog", "remove", run, "C1", "C2", "--no-activate").stdout
    assert "generation 4 is published, but does not serve yet: 2 removed; 60 items" in waits
    item = store.open(3).catalog[60]
    assert item.attributes["price"] == 4.0
    assert item.image.read_bytes() == (tmp_path / "pics" / "c.png").read_bytes()
    assert store.open(3).catalog[61].attributes["category"] == ["kitchen", "cups"]
    listed = document("catalog", "list", run)["generations"]
    assert [(one["number"], one["parent"], one["active"]) for one in listed] == [
        (1, None, False),
        (2, 1, False),
        (3, 2, True),
        (4, 3, False),
    ]
    assert re.search(r"→ │ +3 │ +2 │.*│ +62 │ 1 replaced", call("catalog", "list", run).stdout)
    assert document("catalog", "rollback", run)["generation"] == 2
    assert document("catalog", "activate", run, 4)["generation"] == 4
    measured = call("evaluate", run)
    assert "kitchen: this measures the run; what serves is generation 4" in measured.stderr


def test_what_fails_says_why(store, tmp_path):
    run = store.run.path
    bad = jsonl(tmp_path / "bad.jsonl", [{"item_id": "C1", "title": "x", "image": "none.png"}])
    assert (
        "'none.png' is no file of the source folder"
        in call("catalog", "add", run, bad, code=1).output
    )
    assert "No such file" in call("catalog", "add", run, tmp_path / "no", code=1).output
    error = document("catalog", "remove", run, "C1", code=1)["error"]
    assert error["type"] == "UnknownItem"
    assert document("catalog", "activate", run, 7, code=1)["error"]["type"] == "MissingStage"
    assert store.numbers == [1]


def test_other_addresses_need_keys(store):
    error = document("serve", store.run.path, "--host", "0.0.0.0", code=2)["error"]
    assert "--host 0.0.0.0 can be reached from other machines, so --keys" in error["message"]


def test_a_key_is_shown_once_and_not_kept(tmp_path):
    path = tmp_path / "keys.json"
    made = document("key", "add", path, "--name", "shop", "--role", "write")
    assert len(made["key"]) > 40
    assert made["key"] not in path.read_text()
    assert "has a key 'shop'" in call("key", "add", path, "--name", "shop", code=2).output


def test_an_address_that_is_taken(store):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = document("serve", store.run.path, "--port", port, code=2)["error"]
    assert f"cannot listen on 127.0.0.1 port {port}" in error["message"]


def ask(url, statuses, refused):
    """Send one request after the other, each over a connection of its own, until one fails."""
    while True:
        try:
            answer = httpx2.post(f"{url}/v1/recommend", json={"history": [], "k": 3}, timeout=60)
        except httpx2.HTTPError as error:
            refused.append(type(error).__name__)
            return
        statuses.append(answer.status_code)


def test_the_server_answers_and_stops_when_told(store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "utgrec", "serve", str(store.run.path), "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and server.poll() is None:
            try:
                if httpx2.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx2.HTTPError:
                time.sleep(0.1)
        answer = httpx2.post(f"{url}/v1/recommend", json={"history": ["KIT00001"], "k": 3})
        assert len(answer.json()["answers"][0]["items"]) == 3
        # Told to stop under load: everything that it has accepted gets its answer.
        statuses, refused = [], []
        callers = [threading.Thread(target=ask, args=(url, statuses, refused)) for _ in range(12)]
        for caller in callers:
            caller.start()
        while len(statuses) < 40:
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        for caller in callers:
            caller.join(60)
        assert set(statuses) <= {200, 429} and statuses.count(200) >= 40
        # Nobody listens any more; at most a call in the very moment of that is cut.
        assert len(refused) == 12 and refused.count("ConnectError") >= 11, refused
        out, err = server.communicate(timeout=60)
    except BaseException:
        server.kill()
        server.communicate(timeout=60)
        raise
    assert server.returncode == 0
    assert json.loads(out)["stopped"] is True
    lines = [json.loads(line) for line in err.decode().splitlines() if line.startswith("{")]
    asked = [line for line in lines if line.get("route") == "/v1/recommend"]
    assert (asked[0]["level"], asked[0]["event"], asked[0]["status"]) == ("info", "request", 200)
    assert len(asked) == 1 + len(statuses)
    assert b"KIT00001" not in err
