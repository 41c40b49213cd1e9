"""`utgrec images` and `utgrec clean` as a person types them."""

import json
from pathlib import Path

import pytest
from picture_shops import write_pictured
from picture_web import Reply, picture, serving
from typer.testing import CliRunner

from utgrec.cli import app


def typed(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_images(tmp_path: Path) -> None:
    with serving(lambda request: Reply(picture(1))) as web:
        folder = write_pictured(tmp_path / "shop", [web.url("/a.jpg"), "file:///a.jpg", None])
        code, shown, said = typed("images", folder)
        assert code == 0 and "private address" in shown and "--allow-private-addresses" in said
        again = ("--allow-private-addresses", "--retry", "private address", "--workers", 1)
        code, shown, said = typed("images", folder, *again, "--json")
        assert code == 0 and "fetch pictures: 1 in" in said
        document = json.loads(shown)
    outcomes = {"stored": 1, "scheme not allowed": 1, "no address": 1}
    assert document["images"]["outcomes"] == outcomes
    assert document["counts"]["items_with_image"] == 1


def test_a_proxy_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    urls = ["http://127.0.0.1:1/a.jpg"]
    own = ("--allow-private-addresses", "--attempts", 1, "--workers", 1)
    _, _, said = typed("images", write_pictured(tmp_path / "one", urls), *own)
    assert "only with --proxy env" in said
    _, _, said = typed("images", write_pictured(tmp_path / "two", urls), *own, "--proxy", "env")
    assert "only with --proxy env" not in said
    assert typed("images", tmp_path / "two", "--proxy", "socks5://x")[0] == 2


def test_wrong_usage_and_failures(tmp_path: Path) -> None:
    folder = write_pictured(tmp_path / "shop", [None])
    code, _, said = typed("images", folder, "--retry", "sometimes")
    assert code == 2 and "no outcome sometimes; known: temporary, all, bad response, busy" in said
    assert typed("images", tmp_path / "none")[0] == 1
    code, _, said = typed("images", folder, "--column", "photo")
    assert code == 1 and "no column 'photo'" in said
    assert typed("clean", folder, "--out", tmp_path / "c")[0] == 2


def test_clean(tmp_path: Path) -> None:
    folder = write_pictured(tmp_path / "shop", ["http://a/b.jpg"] * 4)
    code, shown, said = typed("clean", folder, "--out", tmp_path / "c", "--strip-html", "--json")
    assert code == 0, said
    assert json.loads(shown)["cleaned"]["changed_texts"] == {"strip_html": 0}
