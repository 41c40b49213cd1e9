"""Baselines in the same harness: families of systems, tuned and fitted in one way."""

from utgrec.evaluation.baselines.family import Family, FitInput
from utgrec.evaluation.baselines.registry import FAMILIES, find_family
from utgrec.evaluation.baselines.tuning import Trial, Tuning, tune

__all__ = ["FAMILIES", "Family", "FitInput", "Trial", "Tuning", "find_family", "tune"]
