"""Domains × systems × seeds under one protocol: `compare(read_plan("plan.toml"), out)`."""

from utgrec.comparison.comparing import Compared, compare
from utgrec.comparison.plan import ComparisonPlan, DomainPlan, SystemPlan, read_plan

__all__ = ["Compared", "ComparisonPlan", "DomainPlan", "SystemPlan", "compare", "read_plan"]
