"""All families of baselines by name."""

from typing import Any

from utgrec.errors import BadConfig
from utgrec.evaluation.baselines.counting import ItemKNNFamily, PopularityFamily
from utgrec.evaluation.baselines.family import Family
from utgrec.evaluation.baselines.matrices import ALSFamily, BM25Family
from utgrec.evaluation.baselines.sequential import BERT4RecFamily, SASRecFamily
from utgrec.evaluation.baselines.texts import TextKNNFamily
from utgrec.evaluation.baselines.tiger import RQVAETigerFamily, TigerFamily

_ALL: tuple[Family[Any], ...] = (
    PopularityFamily(),
    ItemKNNFamily(),
    TextKNNFamily(),
    BM25Family(),
    ALSFamily(),
    SASRecFamily("sasrec", "SASRec", negatives=(0,)),
    SASRecFamily("sasrec-sampled", "SASRec, sampled softmax", negatives=(2048, 512, 8192)),
    BERT4RecFamily(),
    TigerFamily(),
    RQVAETigerFamily(),
)

FAMILIES: dict[str, Family[Any]] = {family.name: family for family in _ALL}
"""Name → family, in the order in which tables list them."""


def find_family(name: str) -> Family[Any]:
    """The family of a name.

    Raises:
        BadConfig: there is no such family.
    """
    if name not in FAMILIES:
        raise BadConfig(f"there is no baseline {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]
