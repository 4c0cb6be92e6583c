"""Test an environment before a model trains on it: `check("acme/Loan-v0").passed()`."""

from vertigym.envs.check.check_report import CheckReport, Finding, Result
from vertigym.envs.check.checker import check

__all__ = ["CheckReport", "Finding", "Result", "check"]
