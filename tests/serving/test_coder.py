"""A run's tokenizer: its codebooks cost little, the rest is read once, when it is needed."""

import logging
import shutil

import torch
from fastapi.testclient import TestClient
from served import LOCAL

from utgrec.errors import MissingStage
from utgrec.runs import RunFolder
from utgrec.serving.app import create_app
from utgrec.serving.coder import RunCoder
from utgrec.serving.service import ServiceConfig
from utgrec.serving.shared import share_module
from utgrec.tokenizer.pretrained import ItemTokenizer


def test_codebooks_are_read_without_the_rest(trained, monkeypatch):
    folder = RunFolder(trained).tokenizer
    whole = ItemTokenizer.from_pretrained(folder).model.quantizer
    monkeypatch.setattr(ItemTokenizer, "from_pretrained", None)
    quantizer = RunCoder(folder).quantizer
    assert quantizer.config == whole.config
    for name, tensor in whole.state_dict().items():
        assert torch.equal(quantizer.state_dict()[name], tensor)


def test_looking_around_needs_no_backbone(store):
    shutil.rmtree(store.run.tokenizer / "backbone")
    with TestClient(create_app(store), base_url=LOCAL) as client:
        item_id = client.app.state.service.shelf.catalog.item_ids[4]
        for path in (f"similar/{item_id}", "overview", "tree", f"items/{item_id}", "changes"):
            assert client.get(f"/v1/{path}").status_code == 200
        assert client.post("/v1/recommend", json={"history": [item_id]}).status_code == 200
        # What does need it says what is missing, and everything else goes on.
        assert client.post("/v1/tokenize", json={"text": "Blue cup."}).status_code == 409
        assert client.get(f"/v1/similar/{item_id}").status_code == 200


def test_the_tokenizer_is_read_once_and_says_so(trained, caplog):
    coder = RunCoder(RunFolder(trained).tokenizer)
    with caplog.at_level(logging.INFO, logger="utgrec.serving"):
        first = coder.states(["Blue cup."], [None])
        again = coder.states(["Blue cup."], [None])
    assert torch.equal(first, again)
    said = [one.getMessage() for one in caplog.records if "tokenizer" in one.getMessage()]
    assert len(said) == 2 and said[0].startswith("reading") and " s" in said[1]


def test_the_base_model_is_looked_for_where_it_is_said_to_be(store, monkeypatch):
    """By a server as by `catalog add`; on the GPU, where there is one."""
    asked = []

    def opened(folder, **given):
        asked.append(given)
        raise MissingStage("not here")

    monkeypatch.setattr(ItemTokenizer, "from_pretrained", opened)
    monkeypatch.setattr("utgrec.serving.coder.own_device", lambda: torch.device("meta"))
    config = ServiceConfig(backbone="models/base")
    with TestClient(create_app(store, config), base_url=LOCAL) as client:
        assert client.post("/v1/tokenize", json={"text": "Blue cup."}).status_code == 404
    assert asked == [{"backbone": "models/base", "device": torch.device("meta")}]


def test_a_backbone_is_mapped_from_its_own_file_and_not_copied(trained, tmp_path):
    folder = RunFolder(trained).tokenizer
    plain = ItemTokenizer.from_pretrained(folder)
    items = plain.read(["Blue cup.", "A pot."], [None, None])
    states = plain.states(items)
    shared = ItemTokenizer.from_pretrained(folder)
    path = share_module(shared.model, tmp_path)
    backbone = (folder / "backbone" / "model.safetensors").stat().st_size
    whole = sum(tensor.nbytes for tensor in shared.model.state_dict().values())
    assert path.stat().st_size < whole - backbone // 2
    torch.testing.assert_close(shared.states(items), states)
    assert all(
        torch.equal(tensor, plain.model.state_dict()[name])
        for name, tensor in shared.model.state_dict().items()
    )
