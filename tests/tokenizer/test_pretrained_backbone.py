"""A tokenizer on a pretrained backbone: what is trained, saved, opened again and published."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import textwrap
import types
import warnings

import numpy as np
import pytest
import torch
from random_models import PIXELS, VOCABULARY, WIDTH, write_model
from safetensors.torch import load_file, save_file
from small_items import TEXTS, draw_picture, small_config, write_small_domain
from transformers import AutoModel
from typer.testing import CliRunner

from utgrec import storage
from utgrec.catalog import Domain
from utgrec.cli import app
from utgrec.errors import BadConfig, CorruptFile, MissingDependency, MissingStage, SettingsMismatch
from utgrec.tokenizer.backbone import Backbone
from utgrec.tokenizer.backbone_config import (
    LoraSettings,
    MachineSettings,
    PretrainedBackboneConfig,
)
from utgrec.tokenizer.backbone_source import check_folder, find_source, fingerprint_folder
from utgrec.tokenizer.items import build_prompts
from utgrec.tokenizer.lend import lend_tokenizer
from utgrec.tokenizer.pretrained import ItemTokenizer, create_model
from utgrec.tokenizer.publishing import publish_tokenizer
from utgrec.tokenizer.settings import with_backbone
from utgrec.tokenizer.train import train_tokenizer

HISTORIES = [[0, 1, 3, 2, 7], [4, 6, 0], [3, 2, 7], [1, 0, 4, 6], [4, 1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The base model."""
    return write_model(tmp_path_factory.mktemp("base") / "qwen", "qwen2_vl")


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    return Domain.open(write_small_domain(tmp_path_factory.mktemp("domains") / "shop", HISTORIES))


def settings(folder, cache, name="qwen2_vl", **changes):
    low, high = PIXELS.get(name, (1, 10_000))
    values = {
        "name": str(folder),
        "dtype": "float32",
        "min_pixels": low,
        "max_pixels": high,
        "lora": LoraSettings(rank=2, dropout=0.0),
        "machine": MachineSettings(cache=str(cache), workers=0),
    }
    return PretrainedBackboneConfig(**{**values, **changes})


def config(folder, cache, name="qwen2_vl", **changes):
    return dataclasses.replace(
        small_config(precision="fp32"), backbone=settings(folder, cache, name, **changes)
    )


@pytest.fixture(scope="module")
def trained(folder, domain, tmp_path_factory):
    """A trained tokenizer's folder and its configuration."""
    root = tmp_path_factory.mktemp("trained")
    wanted = config(folder, root / "cache")
    train_tokenizer([domain], wanted, root / "tokenizer")
    return root / "tokenizer", wanted


def states(tokenizer, domain):
    items = tokenizer.read(domain.catalog.texts, domain.catalog.images)
    return tokenizer.states(items)


class TestFolder:
    def test_it_holds_the_adapter_and_never_the_base(self, trained, folder):
        out, _ = trained
        adapter = load_file(out / "adapter" / "adapter_model.safetensors")
        assert adapter
        assert all(".lora_" in name for name in adapter)
        base = load_file(folder / "model.safetensors")
        size = sum(value.numel() for value in base.values())
        for path in out.rglob("*.safetensors"):
            for name, value in load_file(path).items():
                assert tuple(value.shape) != (VOCABULARY, WIDTH), name
                assert not name.startswith("backbone.model"), name
        assert sum(value.numel() for value in adapter.values()) < size / 4
        assert not (out / "backbone").exists()
        told = storage.read_json(out / "base.json")
        assert told["fingerprint"] == fingerprint_folder(folder)
        assert {path.name for path in (out / "processor").iterdir()} >= {
            "tokenizer.json",
            "preprocessor_config.json",
        }

    def test_it_opens_and_gives_the_same_states(self, trained, domain):
        out, wanted = trained
        first = ItemTokenizer.from_pretrained(out, wanted)
        second = ItemTokenizer.from_pretrained(out, wanted)
        assert torch.equal(states(first, domain), states(second, domain))
        # The adapter was trained: without it states are others.
        for name, value in second.model.named_parameters():
            if ".lora_B" in name:
                assert value.abs().max() > 0, name
                value.data.zero_()
        assert not torch.equal(states(first, domain), states(second, domain))

    def test_the_adapter_opens_in_plain_peft(self, trained, folder, domain):
        from peft import PeftModel
        from transformers import AutoModel

        out, wanted = trained
        tokenizer = ItemTokenizer.from_pretrained(out, wanted)
        items = tokenizer.read(domain.catalog.texts, domain.catalog.images)
        prompts = build_prompts(items, np.arange(len(items)), tokenizer.model.backbone, 3)
        queries = tokenizer.model.queries
        with torch.no_grad():
            expected = tokenizer.model.backbone(prompts, queries)
            with warnings.catch_warnings():
                # PEFT reads an attribute that some releases of transformers warn of.
                warnings.simplefilter("ignore", FutureWarning)
                theirs = PeftModel.from_pretrained(
                    AutoModel.from_pretrained(folder), out / "adapter"
                ).eval()
            plain = Backbone(folder, settings(folder, "", lora=None)).eval()
            assert not torch.allclose(plain(prompts, queries), expected, atol=1e-5)
            plain.model.language_model = theirs.base_model.model.language_model
            torch.testing.assert_close(plain(prompts, queries), expected)

    def test_the_base_may_lie_elsewhere_but_must_be_the_same(self, trained, folder, tmp_path):
        out, wanted = trained
        shutil.copytree(folder, tmp_path / "moved")
        moved = ItemTokenizer.from_pretrained(out, wanted, backbone=tmp_path / "moved")
        here = ItemTokenizer.from_pretrained(out, wanted)
        assert moved.encode(text="a red cup") == here.encode(text="a red cup")
        weights = load_file(tmp_path / "moved" / "model.safetensors")
        save_file(
            {name: value + 0.01 for name, value in weights.items()},
            tmp_path / "moved" / "model.safetensors",
            {"format": "pt"},
        )
        with pytest.raises(SettingsMismatch, match="is not the model that the tokenizer"):
            ItemTokenizer.from_pretrained(out, wanted, backbone=tmp_path / "moved")
        with pytest.raises(MissingStage, match=r"say where it is: --backbone, or from_pretr"):
            ItemTokenizer.from_pretrained(out, wanted, backbone=tmp_path / "nowhere")

    def test_it_follows_its_base_model_through_the_command_line(
        self, trained, folder, domain, tmp_path
    ):
        """Assigned, encoded and lent where the base model is somewhere else."""
        shutil.copytree(folder, tmp_path / "base")
        publish_tokenizer(trained[0], tmp_path / "tokenizer", name="Shop", reports={})
        shop, here = domain.folder, ["--backbone", str(tmp_path / "base")]
        for words in (
            ["assign", str(tmp_path / "tokenizer"), str(shop)],
            ["encode", str(tmp_path / "tokenizer"), "--items", str(shop / "items.parquet")],
        ):
            command = ["tokenizer", *words, "--out", str(tmp_path / words[0]), "-q"]
            lost = CliRunner().invoke(app, command)
            assert lost.exit_code == 1 and "say where it is: --backbone" in lost.output
            found = CliRunner().invoke(app, [*command, *here])
            assert found.exit_code == 0, found.output
        moved = with_backbone(trained[1], str(tmp_path / "base"))
        lend_tokenizer(tmp_path / "tokenizer", domain, tmp_path / "lent", config=moved)
        assert storage.read_json(tmp_path / "lent" / "base.json")["name"] == str(tmp_path / "base")

    def test_a_base_in_another_type_is_the_same_base(self, trained, caplog):
        out, wanted = trained
        other = dataclasses.replace(wanted.backbone, dtype="bfloat16")
        with caplog.at_level("INFO"):
            opened = ItemTokenizer.from_pretrained(out, dataclasses.replace(wanted, backbone=other))
        assert opened.model.backbone.feature_dtype == torch.bfloat16
        assert "base model in float32, which is bfloat16 here" in caplog.text

    def test_other_adapters_are_another_network(self, trained):
        out, wanted = trained
        other = dataclasses.replace(wanted.backbone, lora=LoraSettings(rank=3))
        with pytest.raises(SettingsMismatch, match=r"backbone\.lora"):
            ItemTokenizer.from_pretrained(out, dataclasses.replace(wanted, backbone=other))

    def test_a_damaged_adapter_is_found(self, trained, tmp_path):
        out, wanted = trained
        shutil.copytree(out, tmp_path / "copy")
        path = tmp_path / "copy" / "adapter" / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(CorruptFile, match="adapter_model"):
            ItemTokenizer.from_pretrained(tmp_path / "copy", wanted)

    def test_this_machines_settings_are_not_recorded(self, trained, domain, tmp_path):
        out, wanted = trained
        machine = MachineSettings(cache=str(tmp_path / "other"), workers=3)
        other = dataclasses.replace(wanted.backbone, machine=machine)
        again = train_tokenizer([domain], dataclasses.replace(wanted, backbone=other), out)
        assert again.config["backbone"]["machine"]["cache"] == ""
        assert not (tmp_path / "other").exists()  # it was finished, so nothing was done


class TestTraining:
    @pytest.mark.parametrize("name", ["qwen3_vl", "smolvlm", "qwen3", "bert", "siglip"])
    def test_every_kind_of_model_trains_and_opens_again(self, domain, tmp_path, name):
        base = write_model(tmp_path / "base", name)
        wanted = config(base, tmp_path / "cache", name, pictures=name not in ("qwen3", "bert"))
        wanted = dataclasses.replace(
            wanted,
            quantizer=dataclasses.replace(wanted.quantizer, warmup_steps=1, settle_rounds=1),
            trainer=dataclasses.replace(wanted.trainer, steps=2),
        )
        made = train_tokenizer([domain], wanted, tmp_path / "out")
        assert made.facts["parameters_trained"] > 0
        one, two = (ItemTokenizer.from_pretrained(tmp_path / "out", wanted) for _ in range(2))
        assert torch.equal(states(one, domain), states(two, domain))
        picture = None if name in ("qwen3", "bert") else domain.catalog.images[0]
        assert len(one.encode(text="a green cup", image=picture)) == 3

    def test_float32_around_a_bfloat16_backbone(self, folder, domain, tmp_path):
        wanted = config(folder, tmp_path / "cache", dtype="bfloat16")
        model = create_model(folder, wanted).train()
        tokenizer = ItemTokenizer(model, None, wanted)
        items = tokenizer.read(domain.catalog.texts, domain.catalog.images)
        assert items.features.dtype == torch.bfloat16
        for name, value in model.named_parameters():
            own = name.startswith("backbone.model") and ".lora_" not in name
            assert value.dtype == (torch.bfloat16 if own else torch.float32), name
            assert value.requires_grad != own, name
        prompts = build_prompts(items, np.arange(len(items)), model.backbone, 3)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.train().states(prompts)
            quantized = model.quantizer(found)
        assert found.dtype == quantized.states.dtype == quantized.loss.dtype == torch.float32
        found.sum().backward()
        moved = {name for name, value in model.named_parameters() if value.grad is not None}
        assert any(".lora_B" in name for name in moved)
        assert {"queries", "features.to_queries.weight"} <= moved

    def test_losses_are_those_of_whole_logits_with_frozen_words(self, folder, domain, tmp_path):
        wanted = config(folder, tmp_path / "cache")
        model = create_model(folder, wanted)
        states = torch.randn(4, 3, wanted.quantizer.dim, requires_grad=True)
        tokens = torch.randint(0, VOCABULARY, (4, 8))
        tokens[1, 5:] = -100
        nobody = torch.full_like(tokens, -100)
        out = model.text_decoder(states, tokens, nobody, model.backbone.embeddings)
        out.own.backward()
        found, states.grad = states.grad.clone(), None
        hidden = model.text_decoder.up(model.text_decoder.decoder(states)[:, :8])
        logits = hidden @ model.backbone.embeddings.T
        whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        whole.backward()
        torch.testing.assert_close(out.own, whole)
        torch.testing.assert_close(found, states.grad, atol=1e-6, rtol=1e-4)
        assert model.backbone.embeddings.grad is None

    def test_what_a_checkpoint_keeps(self, folder, tmp_path):
        wanted = config(folder, tmp_path / "cache")
        one, two = create_model(folder, wanted), create_model(folder, wanted)
        kept = one.kept_state()
        assert {n for n, p in one.named_parameters() if p.requires_grad} <= set(kept)
        own = {name for name in kept if name.startswith("backbone.")}
        assert own and all(".lora_" in name for name in own)
        two.load_kept(kept)
        for name, value in one.state_dict().items():
            assert torch.equal(two.state_dict()[name], value), name
        kept.pop("queries")
        with pytest.raises(CorruptFile, match="1 are missing and 0 unknown, among them queries"):
            two.load_kept(kept)

    def test_recomputing_activations_changes_no_gradient(self, folder, domain, tmp_path):
        gradients = []
        for again in (False, True):
            machine = MachineSettings(workers=0, checkpointing=again)
            wanted = config(folder, "", machine=machine)
            torch.manual_seed(0)
            model = create_model(folder, wanted).train()
            items = ItemTokenizer(model, None, wanted).read(
                domain.catalog.texts, domain.catalog.images
            )
            torch.manual_seed(1)
            model.train().states(
                build_prompts(items, np.arange(4), model.backbone, 3)
            ).square().sum().backward()
            gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
        for name, value in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], value, msg=name)

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
    @pytest.mark.filterwarnings("ignore")  # of torch's compiler
    def test_compiled_layers_give_the_same_states_and_gradients(self, folder, domain):
        """With real torch.compile, on prompts of two widths, in training and encoding."""
        found = []
        for compiled in (False, True):
            wanted = config(folder, "", machine=MachineSettings(workers=0, compile=compiled))
            torch.manual_seed(0)
            model = create_model(folder, wanted)
            items = ItemTokenizer(model, None, wanted).read(
                domain.catalog.texts, domain.catalog.images
            )
            assert (model.backbone.model.language_model._compiled_call_impl is not None) == compiled
            outs = []
            for rows in (np.array([1, 3]), np.arange(4)):
                prompts = build_prompts(items, rows, model.backbone, 3)
                with torch.no_grad():
                    outs.append(model.eval().states(prompts))
                model._project(prompts).square().sum().backward()
            trained = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            found.append((outs, trained))
        (outs, gradients), (others, found_gradients) = found
        for one, other in zip(outs, others, strict=True):
            torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
        assert gradients.keys() == found_gradients.keys()
        for name, value in gradients.items():
            torch.testing.assert_close(
                found_gradients[name],
                value,
                atol=1e-3,
                rtol=1e-3,
                msg=lambda m, n=name: f"{n}: {m}",
            )

    def test_targets_of_the_adapter_can_be_chosen(self, folder):
        chosen = settings(folder, "", lora=LoraSettings(targets=("q_proj", "v_proj")))
        names = [n for n, p in Backbone(folder, chosen).named_parameters() if p.requires_grad]
        assert {n.split(".")[-4] for n in names} == {"q_proj", "v_proj"}
        wrong = settings(folder, "", lora=LoraSettings(targets=("query",)))
        with pytest.raises(BadConfig, match=r"called query; there are down_proj, gate_proj, k_pr"):
            Backbone(folder, wrong)


def test_recipes_go_with_any_base_model_but_those_that_make_their_own(folder, domain, tmp_path):
    command = ["tokenizer", "train", str(domain.folder), "--out", str(tmp_path / "out")]
    command += ["--backbone", str(folder), "--json", "--dry-run"]
    planned = CliRunner().invoke(app, [*command, "--recipe", "small"])
    assert planned.exit_code == 0, planned.output
    counted = json.loads(planned.stdout)["tokenizer"]["parameters_frozen"]
    assert counted == sum(value.numel() for value in AutoModel.from_pretrained(folder).parameters())
    refused = CliRunner().invoke(app, [*command, "--recipe", "tiny"])
    assert refused.exit_code == 2 and "makes a small one of its own" in refused.output


class TestBadFolders:
    def test_missing(self, tmp_path):
        with pytest.raises(MissingStage, match=r"holds no model \(config\.json is missing\)"):
            find_source(str(tmp_path / "nothing"))

    def test_no_such_name_on_the_hub(self, monkeypatch):
        import huggingface_hub

        def refuse(*args, **kwargs):
            raise OSError("no network")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        with pytest.raises(MissingStage, match=r"neither a folder here nor to be had .* no net"):
            find_source("someone/model")

    @pytest.mark.parametrize("damage", ["weights", "half", "header", "shard", "index"])
    def test_half_a_model(self, folder, tmp_path, damage):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        weights = copy / "model.safetensors"
        data = weights.read_bytes()
        if damage == "weights":
            weights.unlink()
        elif damage == "half":
            weights.write_bytes(data[: len(data) // 2])
        elif damage == "header":
            weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        else:
            weights.unlink()
            index = copy / "model.safetensors.index.json"
            index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
            if damage == "index":
                index.write_text("{}")
        expected = MissingStage if damage == "weights" else CorruptFile
        with pytest.raises(expected, match="fetch"):
            check_folder(copy)

    def test_a_configuration_that_describes_nothing(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "model")
        (tmp_path / "model" / "config.json").write_text("[]")
        with pytest.raises(CorruptFile, match="describes no model"):
            Backbone(tmp_path / "model")

    def test_weights_of_another_architecture(self, folder, tmp_path):
        other = write_model(tmp_path / "other", "qwen3")
        shutil.copyfile(other / "model.safetensors", tmp_path / "weights")
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        shutil.copyfile(tmp_path / "weights", copy / "model.safetensors")
        with pytest.raises(CorruptFile, match=r"not those of its config\.json: \d+ of its weights"):
            Backbone(copy, settings(copy, ""))

    def test_no_processor(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "copy")
        (tmp_path / "copy" / "preprocessor_config.json").unlink()
        with pytest.raises(CorruptFile, match="no text tokenizer or picture processor"):
            Backbone(tmp_path / "copy", settings(folder, ""))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"name": ""}, "needs a name"),
            ({"dtype": "int8"}, "dtype is"),
            ({"min_pixels": 9, "max_pixels": 8}, "min_pixels"),
        ],
    )
    def test_settings_that_cannot_work(self, changes, message):
        with pytest.raises(BadConfig, match=message):
            PretrainedBackboneConfig(**{"name": "x", **changes})


class TestPublishing:
    @pytest.fixture(scope="class")
    @staticmethod
    def published(trained, tmp_path_factory):
        out = tmp_path_factory.mktemp("published") / "shop-codes"
        report = {"conflict_rate": 0.125, "moved_rate": 0.25, "agreement_lift": 2.0}
        publish_tokenizer(
            trained[0], out, name="Shop codes", reports={"shop": report}, backbone="some/qwen"
        )
        return out

    def test_it_opens_anywhere_and_gives_the_same_codes(self, published, trained, folder, tmp_path):
        shutil.copytree(published, tmp_path / "away")
        shutil.copytree(folder, tmp_path / "base")
        away = ItemTokenizer.from_pretrained(tmp_path / "away", backbone=tmp_path / "base")
        here = ItemTokenizer.from_pretrained(*trained)
        for text in ("a cup nobody has seen", TEXTS[0]):
            assert away.encode(text=text) == here.encode(text=text)

    def test_a_new_process_elsewhere_encodes_an_item_never_seen(self, trained, folder, tmp_path):
        """Only what was handed on is there: neither the run nor the base model's first place."""
        shutil.copytree(folder, tmp_path / "base")
        publish_tokenizer(trained[0], tmp_path / "away" / "shop", name="Shop", reports={})
        draw_picture(70, 50, seed=3).save(tmp_path / "new.png")
        program = f"""
            import json, sys
            from utgrec import ItemTokenizer
            tokenizer = ItemTokenizer.from_pretrained("shop", backbone={str(tmp_path / "base")!r})
            json.dump([tokenizer.encode(text="Never seen.", image=image)
                       for image in ({str(tmp_path / "new.png")!r}, None)], sys.stdout)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            cwd=tmp_path / "away", capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = [tuple(codes) for codes in json.loads(done.stdout)]
        here = ItemTokenizer.from_pretrained(*trained)
        shown = (tmp_path / "new.png", None)
        assert found == [here.encode(text="Never seen.", image=image) for image in shown]
        assert "Apache License" in (tmp_path / "away" / "shop" / "LICENSE").read_text()

    def test_it_is_complete_and_says_what_it_is(self, published):
        names = {path.name for path in published.iterdir()}
        assert names >= {
            "README.md",
            "config.json",
            "code_report.json",
            "heads.safetensors",
            "adapter",
            "processor",
            "base.json",
            "manifest.json",
        }
        card = (published / "README.md").read_text()
        for told in (
            "license: apache-2.0",
            "base_model: some/qwen",
            "# Shop codes",
            "histories of one domain (`shop`)",
            "0.125",
        ):
            assert told in card
        assert storage.read_json(published / "code_report.json")["shop"]["moved_rate"] == 0.25

    def test_no_path_of_this_machine_is_in_it(self, published, folder):
        private = str(folder.parent.parent).encode()
        for path in published.rglob("*"):
            if path.is_file():
                assert private not in path.read_bytes(), path

    def test_nothing_else_is_overwritten(self, trained, tmp_path):
        (tmp_path / "mine").mkdir()
        with pytest.raises(BadConfig, match="is no published tokenizer"):
            publish_tokenizer(trained[0], tmp_path / "mine", name="x", reports={})


def test_fused_kernels_are_optional_and_change_one_model_alone(folder, monkeypatch):
    """With stand-ins of the same formulas: states, and names of weights, are as before."""
    fast = settings(folder, "", machine=MachineSettings(workers=0, liger=True))
    with pytest.raises(MissingDependency, match="pip install liger-kernel"):
        Backbone(folder, fast)

    class Norm(torch.nn.Module):
        def __init__(self, width, eps):
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(width)), eps

        def forward(self, x):
            return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight

    class Gate:
        @staticmethod
        def apply(gate, up):
            return torch.nn.functional.silu(gate) * up

    def module(name, **members):
        made = types.ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)

    module("liger_kernel")
    module("liger_kernel.ops")
    module("liger_kernel.transformers")
    module("liger_kernel.transformers.rms_norm", LigerRMSNorm=Norm)
    module("liger_kernel.ops.swiglu", LigerSiLUMulFunction=Gate)
    fused, plain = Backbone(folder, fast).eval(), Backbone(folder, settings(folder, "")).eval()
    assert set(fused.state_dict()) == set(plain.state_dict())
    kinds = {type(m).__name__ for m in fused.model.language_model.modules()}
    assert {"Norm", "FusedGate"} <= kinds
    assert not kinds & {"Qwen2VLRMSNorm", "Qwen2MLP"}
    hidden = torch.randn(1, 5, WIDTH)
    positions = torch.arange(5).expand(3, 1, 5)
    with torch.no_grad():
        one, two = (
            b.model.language_model(inputs_embeds=hidden, position_ids=positions).last_hidden_state
            for b in (fused, plain)
        )
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert re.search("Qwen2VLRMSNorm", str(plain.model.language_model))


def test_a_backbone_wider_than_its_features_trains_and_opens(folder, domain, tmp_path, monkeypatch):
    monkeypatch.setattr("utgrec.tokenizer.features.MOST_DIRECTIONS", 8)
    wanted = config(folder, tmp_path / "cache")
    train_tokenizer([domain], wanted, tmp_path / "out")
    one, two = (ItemTokenizer.from_pretrained(tmp_path / "out", wanted) for _ in range(2))
    items = one.read(domain.catalog.texts, domain.catalog.images)
    assert items.summary.shape == (len(items), 32)
    assert torch.equal(one.states(items), states(two, domain))
    assert one.model.features.lens.abs().sum() > 0
