"""The 45 public decision models: each imports or is refused with a reason, and its rules are hit."""

import json
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env

from vertigym.core.types import SPLITS, Split
from vertigym.decisions.model import DecisionError, DecisionModel, in_process
from vertigym.envs.decision.env import load
from vertigym.envs.decision.importer import DecisionImportReport, import_decision
from vertigym.envs.folders import EnvFolder

CLOCK_READERS = (
    "account-dormancy-management",
    "claim-validation-system",
    "dynamic-marketplace-comission-calculator",
    "last-mile-delivery-assignment",
)
MODELS = (
    "airline-loyalty-points-calculations",
    "aml",
    "auto-insurance-premium-calculator",
    "care-team-assignment-system",
    "clinical-pathway-selection",
    "company-analysis",
    "customer-eligibility-engine",
    "customer-onboarding-kyc-verification",
    "decision-table-discounts",
    "delivery-route-optimizer",
    "disaster-relief-fund-allocation",
    "dynamic-tarrif-engine",
    "empty-column-with-space",
    "environment-compliance-assessment",
    "expression-fields",
    "expression-passthrough",
    "flash-sale-eligibility",
    "flight-rebooking-fee-calculator",
    "grant-funding-distribution",
    "immigration-eligibility-evaluator",
    "insurance-agent-commission",
    "insurance-coverage-calculator",
    "insurance-underwriting-risk",
    "loan-approval",
    "medication-dosage-calculator",
    "multi-switch",
    "mvno-partner-enablement",
    "online-checkin-eligibility",
    "partner-revenue-sharing",
    "policy-discount-calculator",
    "product-listing-scoring",
    "regional-compliance-manager",
    "returns-processing-system",
    "seat-map-optimization",
    "seller-fee-calculator",
    "set-fee",
    "smart-financial-product-matcher",
    "table-loop",
    "traffic-violation-penalty-calculator",
    "vehicle-claims-resolution",
    "warehouse-storage-location",
)
# Rules that are proven not to be hit: shadowed, a misspelt value, a value nothing computes.
UNREACHABLE = {
    "aml": {"Global Sanctions:1"},  # a value without a column never holds
    "care-team-assignment-system": {f"assign_providers:{i}" for i in (5, 6, 7)},  # patient = null
    "customer-eligibility-engine": {"evaluateAccountStatus:5"},  # 'poort' is not in the schema's enum
    "multi-switch": {"Model 1b:3"},  # shadowed by the row before
    "traffic-violation-penalty-calculator": {f"assess_risk_and_deadlines:{i}" for i in (4, 5, 6, 8)},
    "vehicle-claims-resolution": {"determineRepairMethod:3"},  # unavailable means older than 10 years
}
NOT_PROVEN = {"company-analysis": {"Overall:1"}}  # behind a script: nothing is ever flagged 'critical'
SIZES: dict[Split, int] = {"train": 90, "eval": 20, "test": 30}
NOW = "2025-03-19T12:00:00Z"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jdm")


@pytest.fixture(scope="module")
def reports() -> dict[str, DecisionImportReport]:
    return {}


@pytest.mark.parametrize("name", [*CLOCK_READERS, *MODELS])
def test_the_engine_reproduces_the_files_own_tests(data: Path, name: str) -> None:
    if name == "last-mile-delivery-assignment":
        pytest.skip("its expected output holds the moment at which it was written")
    model = DecisionModel.read(data / "jdm" / f"{name}.json", in_process)
    assert model.tests
    for case, expected in model.tests:
        assert model.evaluate(case).output == expected


@pytest.mark.parametrize("name", MODELS)
def test_a_model_becomes_a_sound_environment(
    data: Path, folder: Path, reports: dict[str, DecisionImportReport], name: str
) -> None:
    report = import_decision(data / "jdm" / f"{name}.json", f"jdm/{name}-v0", folder / name, sizes=SIZES)
    reports[name] = report
    assert {finding.rule for finding in report.findings} == UNREACHABLE.get(name, set())
    assert {rule for rule, _ in report.not_proven} == NOT_PROVEN.get(name, set())
    assert {rule for rule, _ in report.not_hit} == UNREACHABLE.get(name, set()) | NOT_PROVEN.get(name, set())
    env = load(EnvFolder(folder / name))
    check_env(env, skip_render_check=True)
    for split in SPLITS:
        for task_id in env.tasks.ids(split):
            for text, value in (
                (json.dumps(env.tasks.get(task_id).answer), 1.0),
                ("", 0.0),
                ("{}", 0.0),
                ("[]", 0.0),
            ):
                env.reset(options={"task": task_id})
                assert env.step(text)[1] == value, (task_id, text)


@pytest.mark.parametrize("name", CLOCK_READERS)
def test_a_clock_reader_is_refused_unless_its_clock_is_stopped(
    data: Path, folder: Path, reports: dict[str, DecisionImportReport], name: str
) -> None:
    file = data / "jdm" / f"{name}.json"
    with pytest.raises(DecisionError, match="reads the clock"):
        import_decision(file, f"jdm/{name}-v0", folder / name, sizes=SIZES)
    reports[name] = import_decision(file, f"jdm/{name}-v0", folder / name, sizes=SIZES, now=NOW)
    assert not reports[name].not_hit


def test_coverage_of_rules_and_of_neighbouring_outcomes_over_all_models(
    reports: dict[str, DecisionImportReport],
) -> None:
    if len(reports) < len(MODELS) + len(CLOCK_READERS):
        pytest.skip("runs after the imports")
    covered = [share for r in reports.values() if (share := r.coverage_of_possible) is not None]
    assert sum(covered) / len(covered) >= 0.97
    assert sum(r.adjacent_shown for r in reports.values()) / sum(r.adjacent for r in reports.values()) >= 0.9
    assert (
        sum(r.interacting_hit for r in reports.values()) / sum(r.interacting for r in reports.values()) >= 0.9
    )
