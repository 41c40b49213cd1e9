"""Rules of the code base that no single file can keep: who imports whom, what is public, what is
never used."""

import ast
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mini_run import mini_domains

SOURCE = Path(__file__).parents[1] / "src"

# From the ground up: a part imports only from lines above its own, and from itself.
TIERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("config", "exchange", "processes", "progress"),
    ("precision", "storage"),
    ("catalog", "stages"),
    ("data", "training"),
    ("tokenizer",),
    ("recommender",),
    ("decoding",),
    ("evaluation",),
    ("regimes",),
    ("recipes",),
    ("estimate",),
    ("runs",),
    ("adaptation",),
    ("comparison",),
    ("loaded",),
    ("report",),
    ("serving",),
    ("console",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
TIER = {part: height for height, parts in enumerate(TIERS) for part in parts}

PUBLIC = {
    "utgrec": {"Domain", "ItemTokenizer", "UTGRecError", "load"},
    "utgrec.data": set(),
    "utgrec.data.amazon2023": set(),
    "utgrec.data.cleaning": set(),
    "utgrec.data.download": {
        "DownloadConfig",
        "Hosts",
        "Listed",
        "Wanted",
        "download",
        "fetch",
        "list_files",
        "make_client",
    },
    "utgrec.data.marketplace": {
        "BehaviourConfig",
        "MarketplaceConfig",
        "Oracle",
        "write_marketplace",
    },
    "utgrec.data.pictures": set(),
    "utgrec.tokenizer": set(),
    "utgrec.tokenizer.families": set(),
    "utgrec.training": set(),
    "utgrec.recommender": set(),
    "utgrec.decoding": {
        "AllowedItems",
        "BeamModel",
        "BeamSearch",
        "CausalState",
        "CodeTrie",
        "Exclusions",
        "Hits",
        "ItemSet",
        "ItemTable",
        "LeanCausal",
        "LeanT5",
        "ListColumn",
        "MixedSearch",
        "SelectiveModel",
        "Step",
        "T5State",
        "ValueColumn",
        "exact_causal_scores",
        "exact_scores",
        "make_beam_model",
        "make_search",
        "read_new_words",
    },
    "utgrec.decoding.kernels": {
        "Attention",
        "Kernels",
        "LayerSizes",
        "Matrix",
        "Memory",
        "NativeKernels",
        "Past",
        "TorchKernels",
        "follow",
        "make_kernels",
    },
    "utgrec.evaluation": {
        "Comparison",
        "Evaluation",
        "Grouping",
        "Interval",
        "ItemKNN",
        "ItemKNNConfig",
        "OracleSystem",
        "PairedTest",
        "Popularity",
        "Query",
        "Recommendations",
        "System",
        "comparison",
        "evaluate",
        "group_figures",
        "group_sheet",
        "make_query",
        "mean_intervals",
        "paired_test",
        "standard_groupings",
    },
    "utgrec.evaluation.baselines": {
        "FAMILIES",
        "Family",
        "FitInput",
        "Trial",
        "Tuning",
        "find_family",
        "tune",
    },
    "utgrec.comparison": {
        "Compared",
        "ComparisonPlan",
        "DomainPlan",
        "SystemPlan",
        "compare",
        "read_plan",
    },
    "utgrec.report": {"write_card", "write_comparison", "write_report"},
    "utgrec.serving": set(),
    "utgrec.serving.explorer": set(),
    "utgrec.serving.users": set(),
    "utgrec.commands": set(),
}

MOST_LINES = 400


class Module(NamedTuple):
    """One source file."""

    name: str  # dotted
    path: Path
    tree: ast.Module


def _modules() -> dict[str, Module]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


MODULES = _modules()


def imported(module: Module) -> Iterator[tuple[str, int]]:
    """Every module of utgrec that a file imports anywhere: at the top, in functions, for types."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "utgrec":
                    yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: relative import; name it in full"
            if (node.module or "").partition(".")[0] == "utgrec":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield (inner if inner in MODULES else str(node.module)), node.lineno


def part_of(name: str) -> str:
    """utgrec.data.table → data."""
    return name.split(".")[1]


# --------------------------------------------------------------------------------------- imports


def test_every_part_has_a_tier():
    assert {part_of(name) for name in MODULES if name != "utgrec"} == set(TIER)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "utgrec"])
def test_imports_point_one_way(name):
    own = part_of(name)
    wrong = [
        f"{MODULES[name].path}:{line}: {own} must not import {other}"
        for other, line in imported(MODULES[name])
        if other != "utgrec" and part_of(other) != own and TIER[part_of(other)] >= TIER[own]
    ]
    assert wrong == []


def test_the_root_is_imported_for_its_version_only():
    # It names everything lazily: `utgrec.load` inside the library would be an import of all of it.
    for module in MODULES.values():
        if any(other == "utgrec" for other, _ in imported(module)):
            used = {
                node.attr
                for node in ast.walk(module.tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "utgrec"
            }
            assert used == {"__version__"}, module.path


def test_no_module_imports_itself_through_others():
    waiting = {name: {other for other, _ in imported(m)} for name, m in MODULES.items()}
    waiting["utgrec"] = set()  # its imports are lazy
    while free := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in free:
            del waiting[name]
    assert waiting == {}


def test_the_rules_see_hidden_imports():
    text = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from utgrec.tokenizer.codes import read_codes
        def late():
            import utgrec.cli
            from utgrec.data import split
    """
    module = Module("utgrec.x", Path("x.py"), ast.parse(textwrap.dedent(text)))
    assert {name for name, _ in imported(module)} == {
        "utgrec.tokenizer.codes",
        "utgrec.cli",
        "utgrec.data.split",
    }


# ---------------------------------------------------------------------------------- public names


def test_every_package_has_a_fixed_list():
    packages = {name for name, module in MODULES.items() if module.path.name == "__init__.py"}
    assert packages == set(PUBLIC)


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names(package):
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", [])
    assert len(listed) == len(set(listed))
    assert set(listed) == PUBLIC[package]
    for name in listed:
        assert getattr(module, name) is not None
        assert getattr(module, name).__doc__, f"{package}.{name} has no docstring"


def test_the_root_refuses_other_names():
    utgrec = importlib.import_module("utgrec")
    with pytest.raises(AttributeError, match="nothing"):
        utgrec.nothing  # noqa: B018
    assert {"load", "__version__"} <= set(dir(utgrec))


# ------------------------------------------------------------------------------ what gets loaded


def in_new_python(script: str) -> None:
    """Run a script in a fresh interpreter; its error is this test's error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_import_utgrec_is_light():
    in_new_python("""
        import sys
        import utgrec
        heavy = {"torch", "transformers", "polars", "numpy", "pyarrow", "scipy", "PIL"}
        sys.exit(str(loaded) if (loaded := heavy & set(sys.modules)) else 0)
    """)


BLOCK = """
    import sys
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {"polars", "pydantic", "diffusers"}:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Missing())
"""


def test_training_and_inference_need_no_preparation_libraries():
    in_new_python(
        BLOCK
        + """
    import importlib
    parts = ("training", "tokenizer", "recommender", "decoding", "evaluation", "recipes", "runs",
             "comparison", "loaded", "report", "data.split", "data.neighbours", "stages", "catalog",
             "serving.changes", "serving.service", "serving.keys", "serving.explorer.search",
             "serving.explorer.tree", "serving.explorer.facets", "serving.explorer.hues")
    names = [name for name in {names!r} if name.startswith(tuple("utgrec." + p for p in parts))]
    assert len(names) > 40, names
    for name in names:
        importlib.import_module(name)
    from transformers import T5ForConditionalGeneration, AutoModel, AutoTokenizer
    import accelerate
    """.replace("{names!r}", repr(sorted(MODULES)))
    )


def test_a_whole_run_needs_no_preparation_libraries(tmp_path):
    """Also what is imported only when it is used: training, codes, evaluation, a recommendation."""
    (shop,) = mini_domains(tmp_path / "market", shops=("kitchen",))
    in_new_python(
        BLOCK
        + f"""
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    import dataclasses
    from pathlib import Path
    import utgrec
    from mini_run import mini_recipe
    from utgrec.runs import run_recipe
    from utgrec.tokenizer.bulk_workers import encode_items
    shop, out = Path({str(shop)!r}), Path({str(tmp_path / "run")!r})
    run_recipe(mini_recipe(), [shop], out)
    encode_items(out / "tokenizer", shop / "items.parquet", out.parent / "codes")
    assert utgrec.load(out).recommend([], k=3)
    assert not {{"polars", "pydantic", "diffusers"}} & set(sys.modules)
    """
    )


def test_the_block_blocks():
    in_new_python(
        BLOCK
        + """
    try:
        import utgrec.data.table
    except ModuleNotFoundError as error:
        assert error.name == "polars"
    else:
        sys.exit("polars was importable")
    """
    )


# ------------------------------------------------------------------------------ what is not used

FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"print", "eval", "exec", "breakpoint", "input"}


def forbidden(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything that the library must not use."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (
                (node.lineno, name)
                for name in names
                if name.partition(".")[0] in FORBIDDEN_IMPORTS or name == "*"
            )
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
                yield node.lineno, called.id
            elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                whole = f"{called.value.id}.{called.attr}"
                if whole == "torch.load" and any(
                    word.arg == "weights_only" and getattr(word.value, "value", None) is True
                    for word in node.keywords
                ):
                    continue  # reads weights and runs nothing
                if whole in ("torch.load", "torch.save", "np.load", "numpy.load", "builtins.eval"):
                    yield node.lineno, whole


def test_nothing_forbidden_is_used():
    found = [
        f"{module.path}:{line}: {what}"
        for module in MODULES.values()
        for line, what in forbidden(module.tree)
    ]
    assert found == []


def test_what_is_forbidden_is_found():
    text = """
        import pickle
        from joblib import dump
        from numpy import *
        def f(x):
            print(x)
            torch.load(x)
            torch.load(x, weights_only=True)  # that one, too
            model.eval()  # that one is fine
            return eval(x)
    """
    found = {what for _, what in forbidden(ast.parse(textwrap.dedent(text)))}
    assert found == {"pickle", "joblib", "*", "print", "torch.load", "eval"}


def test_the_split_is_the_domains_own():
    """Nobody chooses leave-one-out by themselves: a split by time would be forgotten."""
    named = {
        module.name
        for module in MODULES.values()
        for node in ast.walk(module.tree)
        if getattr(node, "id", getattr(node, "attr", "")) == "leave_one_out"
        or (isinstance(node, ast.alias) and node.name == "leave_one_out")
    }
    assert named == set()


def test_files_stay_short():
    lengths = {
        str(module.path.relative_to(SOURCE)): len(module.path.read_text().splitlines())
        for module in MODULES.values()
    }
    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_every_file_says_what_it_is_for():
    without = [
        str(module.path.relative_to(SOURCE))
        for module in MODULES.values()
        if not ast.get_docstring(module.tree)
    ]
    assert without == []


def test_every_error_is_in_the_tree():
    errors = importlib.import_module("utgrec.errors")
    classes = {
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, Exception)
    }
    drawn = str(errors.__doc__).splitlines()
    parents: dict[str, str] = {}
    last = "UTGRecError"
    for line in drawn:
        name = line.lstrip("│├└─ ").partition(" ")[0]
        if name in classes and line[:1] in "├└":
            parents[name], last = "UTGRecError", name
        elif name in classes and line[:1] in "│ ":
            parents[name] = last
    assert {name: cls.__base__.__name__ for name, cls in classes.items()} == {
        "UTGRecError": "Exception",
        **parents,
    }
