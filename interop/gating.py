"""Gates over results that are there already: what a suite says of gates, and the reports say the rest."""

from pathlib import Path

from vertigym.core import config
from vertigym.evals.gate import Decision, decide
from vertigym.evals.report import Report
from vertigym.evals.suite import Suite

IMPROVES = {"gate": [{"rule": "improves"}]}


def decide_results(gates: Path | None, report: Report, champion: Report | None = None) -> Decision:
    """Apply the gates of a TOML file: a whole suite, or its `[[gate]]` tables, `combine`, `confidence`,
    `max_unscored` and `[ranges]` alone. Without a file the one gate is `improves`.

    Raises:
        DataError: no such file. ConfigError: it is wrong, or asks for what the results do not have.
    """
    table = config.read_toml(gates) if gates else IMPROVES
    envs = [{"id": label} for label in dict.fromkeys(row.env for row in report.rows)]
    suite = config.parse(Suite, {"name": "gates", "env": envs, **table}, source=str(gates or "gates"))
    ranges = {**report.ranges, **suite.ranges}
    return decide(suite, report.model_copy(update={"ranges": ranges}), champion)
