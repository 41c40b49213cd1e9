"""The tokenizer stage: odd domains train, a saved tokenizer gives the codes it gave before."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_items import TEXTS, small_config, write_small_domain

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.data.split import leave_one_out
from utgrec.errors import BadConfig, CorruptFile, MissingStage, SettingsMismatch
from utgrec.tokenizer import train as stage
from utgrec.tokenizer.assignment import assign_codes
from utgrec.tokenizer.codes import assign_domain, read_codes
from utgrec.tokenizer.pretrained import ItemTokenizer
from utgrec.tokenizer.quantizer import TreeQuantizer
from utgrec.tokenizer.train import train_tokenizer

# Users of 3 leave one training item; 2 and 7 occur as held-out items only, 5 nowhere.
HISTORIES = [[0, 1, 3, 2, 7], [4, 6, 0], [3, 2, 7], [1, 0, 4, 6], [4, 1]]


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """One with pictures, one of words only."""
    folder = tmp_path_factory.mktemp("domains")
    return [
        Domain.open(write_small_domain(folder / "shop", HISTORIES)),
        Domain.open(write_small_domain(folder / "words", HISTORIES[::-1], pictures=False)),
    ]


@pytest.fixture(scope="module")
def trained(domains, tmp_path_factory):
    """A tokenizer of both domains, and the model as it was in memory before it was saved."""
    out = tmp_path_factory.mktemp("trained") / "tokenizer"
    kept = []
    save = ItemTokenizer.save

    def keep(self, folder):
        kept.append(self)
        save(self, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemTokenizer, "save", keep)
        manifest = train_tokenizer(domains, small_config(), out)
    return out, manifest, kept[0]


def read_rows(folder):
    """The logged losses of a tokenizer."""
    lines = (folder / "losses.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class TestFolder:
    def test_codes_after_saving_are_those_before(self, trained, domains):
        out, _, before = trained
        after = ItemTokenizer.from_pretrained(out)
        catalog = domains[0].catalog
        for item in catalog:
            codes = before.encode(text=item.text, image=item.image)
            assert after.encode(text=item.text, image=item.image) == codes
            assert len(codes) == 3
            assert all(0 <= code < size for code, size in zip(codes, (4, 6, 6), strict=True))
        states = [
            tokenizer.states(tokenizer.read(catalog.texts, catalog.images))
            for tokenizer in (before, after)
        ]
        assert torch.equal(*states)
        for name, value in before.model.state_dict().items():
            assert torch.equal(value, after.model.state_dict()[name]), name

    def test_nothing_in_it_is_a_pickle(self, trained):
        files = [path for path in trained[0].rglob("*") if path.is_file()]
        assert {path.suffix for path in files} <= {".json", ".jsonl", ".safetensors", ".jinja"}
        assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04", b"PK") for path in files)

    def test_the_backbone_is_not_in_it_twice(self, trained):
        from safetensors.torch import load_file

        names = load_file(trained[0] / "heads.safetensors").keys()
        assert names
        assert not any(name.startswith("backbone.") for name in names)

    def test_every_loss_is_logged_by_name(self, trained):
        rows = read_rows(trained[0])
        assert [row["step"] for row in rows] == [2, 4, 5]
        for row in rows:
            assert set(row) >= {"text", "image", "code", "alignment", "partner_text",
                                "partner_image", "loss", "gradient_norm"}  # fmt: skip
        assert rows[0]["code"] == 0  # warm-up
        assert rows[1]["code"] > 0

    def test_only_items_of_training_histories_train(self, trained):
        # shop: 0, 1, 3, 4 and, of the pair that is all training, 4 and 1; words: the same.
        assert trained[1].facts["items_trained"] == 2 * 4
        assert trained[1].facts["domains"] == ["shop", "words"]
        assert trained[1].facts["unreadable_pictures"] == []

    def test_the_pool_keeps_the_domains_apart(self, domains):
        pool = stage._pool(domains)
        trained = {pool.item_ids[row] for row in pool.trained}
        expected = {0, 1, 3, 4}
        assert trained == {f"{name}-{row}" for name in ("shop", "words") for row in expected}
        assert pool.texts == domains[0].catalog.texts + domains[1].catalog.texts
        assert pool.pictures == domains[0].catalog.images + domains[1].catalog.images
        for row in range(16):
            near = {pool.item_ids[other] for other in pool.neighbours.of(row)}
            name = pool.item_ids[row].split("-")[0]
            assert all(other.startswith(name) for other in near)
        assert {pool.item_ids[row] for row in pool.neighbours.of(8)} == {"words-1"}

    def test_the_vocabulary_comes_from_trained_items_only(self, domains, tmp_path, monkeypatch):
        class Seen(Exception):
            pass

        def look(folder, texts, pictures, config):
            raise Seen(list(texts), len(pictures))

        monkeypatch.setattr(stage, "create_tiny_backbone", look)
        with pytest.raises(Seen) as seen:
            train_tokenizer(domains, small_config(), tmp_path / "out")
        texts, pictures = seen.value.args
        assert texts == [TEXTS[row] for row in (0, 1, 3, 4)] * 2
        assert pictures == 4  # all four of the shop's trained items have one

    @pytest.mark.parametrize(
        "name", ["heads.safetensors", "latents.safetensors", "backbone/model.safetensors"]
    )
    def test_a_changed_file_is_refused(self, trained, tmp_path, name):
        import shutil

        shutil.copytree(trained[0], tmp_path / "copy")
        path = tmp_path / "copy" / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(CorruptFile, match="is not the file its manifest names"):
            ItemTokenizer.from_pretrained(tmp_path / "copy")

    def test_an_unfinished_one_is_refused(self, tmp_path):
        with pytest.raises(MissingStage, match="no finished tokenizer"):
            ItemTokenizer.from_pretrained(tmp_path)


class TestEncode:
    def test_pictures_and_words_matter(self, trained, domains):
        tokenizer = trained[2]
        items = domains[0].catalog
        base = tokenizer.states(tokenizer.read([items[0].text], [items[0].image]))
        for text, image in (("other", items[0].image), (items[0].text, items[1].image),
                            (items[0].text, None)):  # fmt: skip
            other = tokenizer.states(tokenizer.read([text], [image]))
            assert (base - other).abs().max() > 1e-4

    def test_many_are_as_one(self, trained, domains, monkeypatch):
        tokenizer, catalog = trained[2], domains[0].catalog
        read = tokenizer.read(catalog.texts, catalog.images)
        together = tokenizer.states(read)
        monkeypatch.setattr("utgrec.tokenizer.pretrained.ENCODE_AT_ONCE", 3)
        torch.testing.assert_close(tokenizer.states(read), together, atol=1e-4, rtol=1e-4)
        alone = [tokenizer.states(tokenizer.read([item.text], [item.image]))[0] for item in catalog]
        torch.testing.assert_close(torch.stack(alone), together, atol=1e-4, rtol=1e-4)

    def test_nothing_at_all_has_codes(self, trained):
        assert len(trained[2].encode(text="")) == 3

    def test_an_unreadable_picture_is_none(self, trained, tmp_path):
        (tmp_path / "x.png").write_bytes(b"broken")
        codes = trained[2].encode(text="a red cup", image=tmp_path / "x.png")
        assert codes == trained[2].encode(text="a red cup")


class TestCodes:
    @pytest.fixture
    def coded(self, trained, domains, tmp_path):
        """The codes stage of the shop."""
        manifest = assign_domain(trained[0], domains[0], tmp_path / "codes")
        return tmp_path / "codes", manifest

    def test_the_table(self, coded, trained, domains):
        folder, manifest = coded
        read = read_codes(folder, domains[0].folder)
        table = pq.read_table(folder / "codes.parquet")
        assert table.column_names == ["item_id", "codes", "conflict", "distance"]
        assert table.schema.field("codes").type == pa.list_(pa.int16(), 3)
        assert table.column("item_id").to_pylist() == domains[0].catalog.item_ids
        assert table.column("codes").to_pylist() == read.codes.tolist()
        assert len({tuple(row) for row in read.codes.tolist()}) == len(TEXTS)
        assert read.catalog.images == domains[0].catalog.images
        assert read.domain == "shop"
        assert read.fingerprint == manifest.fingerprint
        tokenizer, catalog = trained[2], domains[0].catalog
        items = tokenizer.read(catalog.texts, catalog.images)
        states = tokenizer.states(tokenizer.add_company(items, leave_one_out(domains[0])))
        nearest = tokenizer.model.quantizer.nearest(states).tolist()
        for index, conflict in enumerate(table.column("conflict").to_pylist()):
            assert (read.codes[index].tolist() == nearest[index]) == (not conflict)
        again = assign_codes(
            states,
            catalog.item_ids,
            tokenizer.model.quantizer,
        )
        assert np.array_equal(again.codes, read.codes)

    def test_the_report_is_there(self, coded):
        folder, manifest = coded
        report = json.loads((folder / "report.json").read_text())
        assert report["items"] == len(TEXTS)
        assert manifest.facts["sizes"] == [4, 6, 6]
        assert {name: manifest.facts[name] for name in report} == report

    def test_a_second_call_does_nothing_and_another_domain_is_refused(
        self, coded, trained, domains
    ):
        folder, manifest = coded
        before = (folder / "codes.parquet").stat().st_mtime_ns
        assert assign_domain(trained[0], domains[0], folder) == manifest
        assert (folder / "codes.parquet").stat().st_mtime_ns == before
        with pytest.raises(SettingsMismatch, match="other input"):
            assign_domain(trained[0], domains[1], folder)

    def test_a_changed_table_is_refused(self, coded):
        folder, _ = coded
        table = pq.read_table(folder / "codes.parquet")
        pq.write_table(table.slice(1), folder / "codes.parquet")
        with pytest.raises(CorruptFile):
            read_codes(folder)


class TestOddDomains:
    def domain(self, tmp_path, histories, **changes):
        return Domain.open(write_small_domain(tmp_path / "odd", histories, **changes))

    def run(self, tmp_path, domain, **changes):
        """Train a few steps past the warm-up and encode everything."""
        config = dataclasses.replace(small_config(), **changes)
        manifest = train_tokenizer([domain], config, tmp_path / "out")
        assign_domain(tmp_path / "out", domain, tmp_path / "codes")
        return manifest

    def test_all_users_have_three_items(self, tmp_path):
        """Nobody has a neighbour, so nothing can be aligned."""
        manifest = self.run(tmp_path, self.domain(tmp_path, [[0, 1, 2], [3, 4, 5], [6, 7, 0]]))
        assert manifest.facts["items_trained"] == 3
        rows = read_rows(tmp_path / "out")
        for row in rows:
            assert row["alignment"] == row["partner_text"] == row["partner_image"] == 0
            assert row["text"] > 0

    def test_nobody_has_a_picture(self, tmp_path):
        domain = self.domain(tmp_path, HISTORIES, pictures=False)
        self.run(tmp_path, domain)
        rows = read_rows(tmp_path / "out")
        assert all(row["image"] == row["partner_image"] == 0 for row in rows)
        assert all(row["text"] > 0 for row in rows)

    def test_nobody_has_words(self, tmp_path):
        self.run(tmp_path, self.domain(tmp_path, HISTORIES, texts=[""] * 8))
        rows = read_rows(tmp_path / "out")
        assert all(row["text"] == row["partner_text"] == 0 for row in rows)
        assert all(row["image"] > 0 for row in rows)

    def test_one_item_was_ever_taken(self, tmp_path):
        manifest = self.run(tmp_path, self.domain(tmp_path, [[3]]))
        assert manifest.facts["items_trained"] == 1

    def test_a_broken_picture_is_named(self, tmp_path):
        domain = self.domain(tmp_path, HISTORIES)
        domain.catalog.images[0].write_bytes(b"broken")
        manifest = self.run(tmp_path, domain)
        assert manifest.facts["unreadable_pictures"] == ["odd-0"]

    @pytest.mark.parametrize("kind", ["vq", "ema"])
    def test_other_codebooks(self, tmp_path, kind):
        config = small_config()
        quantizer = dataclasses.replace(config.quantizer, kind=kind)
        domain = self.domain(tmp_path, HISTORIES)
        self.run(tmp_path, domain, quantizer=quantizer)
        tokenizer = ItemTokenizer.from_pretrained(tmp_path / "out")
        assert len(tokenizer.encode(text="a red cup")) == 3

    def test_no_domain_at_all(self, tmp_path):
        with pytest.raises(BadConfig, match="at least one domain"):
            train_tokenizer([], small_config(), tmp_path / "out")

    def test_a_warm_up_as_long_as_the_training_is_refused(self):
        """The codebooks would never be placed, and all codes be noise."""
        with pytest.raises(BadConfig, match=r"warmup_steps \(2\) .* steps \(2\)"):
            small_config(steps=2)


class TestStage:
    def test_a_second_call_does_nothing_and_other_settings_are_refused(
        self, trained, domains, monkeypatch
    ):
        out, manifest, _ = trained
        monkeypatch.setattr(stage, "_make", lambda *_: 1 / 0)
        assert train_tokenizer(domains, small_config(), out) == manifest
        with pytest.raises(SettingsMismatch, match=r"trainer\.steps: 5 there, 6 asked"):
            train_tokenizer(domains, small_config(steps=6), out)
        with pytest.raises(SettingsMismatch, match=r"other input \(domain words\)"):
            train_tokenizer(domains[:1], small_config(), out)

    def test_the_same_again_is_the_same_bit_for_bit(self, trained, domains, tmp_path):
        out, manifest, _ = trained
        again = train_tokenizer(domains, small_config(), tmp_path / "again")
        assert again.files == manifest.files
        assert storage.read_manifest(out, "tokenizer").fingerprint == again.fingerprint

    def test_a_checkpoint_of_other_settings_is_refused(self, domains, tmp_path):
        def stop(work, done, total, note=""):
            if work == "Training the tokenizer" and done == 3:
                raise KeyboardInterrupt

        config = small_config(checkpoint_every_s=0.0)
        with pytest.raises(KeyboardInterrupt):
            train_tokenizer(domains, config, tmp_path / "out", stop)
        other = dataclasses.replace(config, batch_size=4)
        with pytest.raises(SettingsMismatch, match="other settings or other input"):
            train_tokenizer(domains, other, tmp_path / "out")


@pytest.mark.parametrize("rounds", [0, 3])
def test_codebooks_settle_on_the_states_of_trained_items(domains, tmp_path, monkeypatch, rounds):
    """Once, after the last step, on what the finished network makes of them."""
    seen = []
    monkeypatch.setattr(TreeQuantizer, "settle", lambda self, states: seen.append(states))
    config = small_config()
    quantizer = dataclasses.replace(config.quantizer, settle_rounds=rounds)
    train_tokenizer(domains, dataclasses.replace(config, quantizer=quantizer), tmp_path / "made")
    if not rounds:
        assert seen == []
        return
    tokenizer, expected = ItemTokenizer.from_pretrained(tmp_path / "made"), []
    for domain in domains:
        split, catalog = leave_one_out(domain), domain.catalog
        items = tokenizer.read(catalog.texts, catalog.images)
        states = tokenizer.states(tokenizer.add_company(items, split))
        expected.append(states[np.unique(split.train)])
    (states,) = seen
    torch.testing.assert_close(states, torch.cat(expected), atol=1e-4, rtol=1e-4)
