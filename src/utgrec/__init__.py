"""UTGRec: transferable generative recommendation."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Domain", "ItemTokenizer", "UTGRecError", "load"]

if TYPE_CHECKING:
    from utgrec.catalog import Domain
    from utgrec.errors import UTGRecError
    from utgrec.loaded import load
    from utgrec.tokenizer.pretrained import ItemTokenizer

_HOMES = {
    "Domain": "utgrec.catalog",
    "ItemTokenizer": "utgrec.tokenizer.pretrained",
    "UTGRecError": "utgrec.errors",
    "load": "utgrec.loaded",
}


def __getattr__(name: str) -> Any:
    # Looked up on first use, so that `import utgrec` and `utgrec --help` do not load torch.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'utgrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
