"""The public names of the package, fixed."""

import utgrec.evaluation


def test_public_names():
    names = [
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
    assert sorted(utgrec.evaluation.__all__) == sorted(names)
    assert all(hasattr(utgrec.evaluation, name) for name in names)
