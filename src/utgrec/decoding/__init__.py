"""From a model's probabilities to items: beam search that can only reach the catalogue."""

from utgrec.decoding.beam import BeamModel, BeamSearch, Hits, SelectiveModel, Step
from utgrec.decoding.causal import CausalState, LeanCausal, read_new_words
from utgrec.decoding.exact import exact_causal_scores, exact_scores
from utgrec.decoding.filters import AllowedItems, Exclusions
from utgrec.decoding.item_table import ItemTable
from utgrec.decoding.itemsets import ItemSet, ListColumn, ValueColumn
from utgrec.decoding.mixed import MixedSearch, make_search
from utgrec.decoding.models import make_beam_model
from utgrec.decoding.t5 import LeanT5, T5State
from utgrec.decoding.trie import CodeTrie

__all__ = [
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
]
