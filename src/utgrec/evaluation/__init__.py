"""Full-ranking evaluation: one protocol for all systems, metrics, intervals, groups, baselines."""

from utgrec.evaluation.groups import Grouping, group_figures, group_sheet, standard_groupings
from utgrec.evaluation.intervals import Interval, PairedTest, mean_intervals, paired_test
from utgrec.evaluation.itemknn import ItemKNN, ItemKNNConfig
from utgrec.evaluation.oracle import OracleSystem
from utgrec.evaluation.popularity import Popularity
from utgrec.evaluation.protocol import Query, Recommendations, System, evaluate, make_query
from utgrec.evaluation.result import Evaluation
from utgrec.evaluation.table import Comparison, comparison

__all__ = [
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
]
