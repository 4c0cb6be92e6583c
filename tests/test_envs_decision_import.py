"""From a decision model to an environment folder: coverage, splits, what is asked for, refusals, stale logs."""

import json
from pathlib import Path
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env

from vertigym.core.errors import ConfigError, DataError, InputError, OutputError
from vertigym.core.manifest import MANIFEST, verify
from vertigym.core.types import SPLITS, Split
from vertigym.decisions.model import DecisionError, DecisionModel
from vertigym.decisions.outputs import computed_fields, project
from vertigym.decisions.sampler import Sampler
from vertigym.envs import registry
from vertigym.envs.decision.builtin import CREDIT_LIMIT, RETURNS, folder_of, rebuild
from vertigym.envs.decision.config import OLD_DECISION
from vertigym.envs.decision.env import DecisionEnv, load
from vertigym.envs.decision.importer import DecisionImportReport, import_decision
from vertigym.envs.decision.stale import company_logs, derive_old, old_version, stale_logs
from vertigym.envs.folders import EnvFolder

SIZES: dict[Split, int] = {"train": 60, "eval": 12, "test": 20}


def table(
    name: str, inputs: list[str], outputs: list[str], rows: list[list[str]], **content: Any
) -> dict[str, Any]:
    """A decision table node; a row is its conditions, then its outcomes."""
    columns = [{"id": f"{name}{i}", "field": field} for i, field in enumerate([*inputs, *outputs])]
    rules = [
        {"_id": str(n), **{c["id"]: cell for c, cell in zip(columns, row, strict=True)}}
        for n, row in enumerate(rows)
    ]
    content = {"hitPolicy": "first", "passThrough": True, **content}
    content |= {"inputs": columns[: len(inputs)], "outputs": columns[len(inputs) :], "rules": rules}
    return {"id": name, "name": name, "type": "decisionTableNode", "content": content}


def expression(name: str, pairs: dict[str, str], **content: Any) -> dict[str, Any]:
    items = [{"id": f"{name}{key}", "key": key, "value": value} for key, value in pairs.items()]
    content = {"passThrough": True, **content, "expressions": items}
    return {"id": name, "name": name, "type": "expressionNode", "content": content}


def graph(*nodes: dict[str, Any], tests: list[dict[str, Any]] | None = None) -> str:
    """A chain of nodes as JDM text; `tests` are inputs."""
    chain: list[dict[str, Any]] = [{"id": "in", "name": "request", "type": "inputNode"}, *nodes]
    edges = [
        {"id": f"e{i}", "sourceId": chain[i]["id"], "targetId": chain[i + 1]["id"]} for i in range(len(nodes))
    ]
    return json.dumps({"nodes": chain, "edges": edges, "tests": [{"input": t} for t in tests or []]})


LOAN = graph(
    table("grade", ["score"], ["points.grade"], [[">= 700", "'good'"], [">= 600", "'fair'"], ["", "'poor'"]]),
    expression("ratio", {"ratio": "debt / income * 100"}),
    table(
        "decide",
        ["points.grade", "ratio", "kind"],
        ["decision", "rate"],
        [
            ["'poor'", "", "", "'no'", "0"],
            ["", "> 40", "", "'no'", "0"],
            ["'good'", "(38..39)", "'car'", "'edge'", "1.5"],
            ["'good'", "", "'car', 'home'", "'yes'", "2.5"],
            ["", "", "", "'review'", "3"],
            ["'good'", "< 10", "", "'never'", "9"],
        ],
    ),
    tests=[{"name": "Ann", "score": 650, "debt": 900, "income": 3000, "kind": "car"}],
)


def imported(tmp_path: Path, text: str, **options: Any) -> tuple[DecisionImportReport, DecisionEnv]:
    file = tmp_path / "model.json"
    file.write_text(text)
    report = import_decision(file, "acme/Loan-v0", tmp_path / "Loan-v0", **{"sizes": SIZES, **options})
    return report, load(EnvFolder(tmp_path / "Loan-v0"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_an_import_makes_a_complete_environment(tmp_path: Path) -> None:
    report, env = imported(tmp_path, LOAN, description="Loans.")
    assert sorted(everything(report.folder)) == [
        "README.md", "decision.json", "env.toml", "manifest.json",
        "tasks/eval.jsonl", "tasks/test.jsonl", "tasks/train.jsonl",
    ]  # fmt: skip
    assert report.counts == SIZES
    assert report.outputs == env.config.outputs == ("points.grade", "ratio", "decision", "rate")
    assert [rule for rule, _ in report.not_hit] == ["decide:6"]
    assert report.coverage == pytest.approx(8 / 9)
    assert (
        "`decide:6` points.grade 'good', ratio < 10 -> decision 'never', rate 9"
        in (report.folder / "README.md").read_text()
    )
    assert registry.make(str(report.folder)).tasks.ids("eval") == env.tasks.ids("eval")
    check_env(env, skip_render_check=True)


def test_a_rule_that_only_a_narrow_computed_value_hits_is_found() -> None:
    hits = [len(Sampler(DecisionModel(LOAN), seed).run(2000).hit) for seed in range(4)]
    assert hits == [8] * 4


def test_tasks_say_what_the_engine_says_and_share_no_case(tmp_path: Path) -> None:
    report, env = imported(tmp_path, LOAN)
    model = DecisionModel.read(report.folder / "decision.json")
    seen = set()
    for split in SPLITS:
        for task in map(env.tasks.get, env.tasks.ids(split)):
            outcome = model.evaluate(task.info["input"])
            assert task.answer == project(outcome.output, report.outputs)
            assert tuple(task.info["rules"]) == outcome.rules
            assert task.cluster == task.id  # the case is what is sampled, not its rules
            assert json.loads(str(task.prompt).partition("\n")[0]) == task.info["input"]
            seen.add(json.dumps(task.info["input"], sort_keys=True))
    assert len(seen) == sum(report.counts.values())


def test_every_split_sees_the_common_rules(tmp_path: Path) -> None:
    _, env = imported(tmp_path, LOAN, sizes={"train": 120, "eval": 40, "test": 60})
    rules = [{r for i in env.tasks.ids(s) for r in env.tasks.get(i).info["rules"]} for s in SPLITS]
    assert rules[0] == rules[1] == rules[2]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_cases(tmp_path: Path) -> None:
    folders = []
    for number, seed in enumerate((3, 3, 4)):
        (tmp_path / str(number)).mkdir()
        report, _ = imported(tmp_path / str(number), LOAN, seed=seed)
        folders.append(everything(report.folder))
    assert folders[0] == folders[1]
    assert folders[0]["tasks/test.jsonl"] != folders[2]["tasks/test.jsonl"]


def test_the_reference_earns_one_and_doing_nothing_earns_nothing(tmp_path: Path) -> None:
    _, env = imported(tmp_path, LOAN)
    for task_id in env.tasks.ids("test"):
        for text, value in ((json.dumps(env.tasks.get(task_id).answer), 1.0), ("", 0.0), ("{}", 0.0)):
            env.reset(options={"task": task_id})
            _, reward, terminated, _, info = env.step(text)
            assert (reward, terminated) == (value, True)
            assert {"parses", "fields", "exact"} <= info["score"].parts.keys()


def test_rules_are_shown_or_hidden_by_one_key(tmp_path: Path) -> None:
    report, hidden = imported(tmp_path, LOAN)
    shown = load(EnvFolder(report.folder), rules="shown")
    task = hidden.tasks.ids("train")[0]
    hidden.reset(options={"task": task})
    shown.reset(options={"task": task})
    assert [m["role"] for m in hidden.messages] == ["user"]
    assert [m["role"] for m in shown.messages] == ["system", "user"]
    assert "| 'good' | (38..39) | 'car' | 'edge' | 1.5 |" in shown.messages[0]["content"]
    with pytest.raises(ConfigError, match="rules"):
        load(EnvFolder(report.folder), rules="half")


def test_which_outputs_are_asked_for_can_be_chosen(tmp_path: Path) -> None:
    report, env = imported(tmp_path, LOAN, outputs=["decision"])
    assert report.outputs == ("decision",)
    assert set(env.tasks.get(env.tasks.ids("train")[0]).answer) == {"decision"}
    with pytest.raises(ConfigError, match=r"no case has a field 'decison'; the model computes points\.grade"):
        imported(tmp_path, LOAN, outputs=["decison"])


def test_passed_through_fields_are_not_asked_for() -> None:
    model = DecisionModel(graph(expression("e", {"person.full": "person.first + '!'", "nothing": "null"})))
    cases: list[dict[str, Any]] = [{"person": {"first": "Ann"}, "id": 7}]
    assert computed_fields(model, [(c, model.evaluate(c).output) for c in cases]) == ["person.full"]


def test_a_small_model_shares_its_few_cases_out(tmp_path: Path) -> None:
    report, _ = imported(
        tmp_path, graph(table("t", ["vip", "kind"], ["o"], [["true", "'a'", "1"], ["", "", "2"]]))
    )
    assert all(count >= 1 for count in report.counts.values())
    assert any("distinct cases" in warning for warning in report.warnings)


CLOCK = graph(
    expression("age", {"days": "(date('now') - date(start)) / 86400"}), tests=[{"start": "2024-01-01"}]
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        (graph(expression("e", {"x": "1 + 1"})), "no inputs to vary"),
        (CLOCK, r"node 'age' reads the clock.*two answers.*now="),
        (graph(expression("e", {"x": "rand(6) + a"}), tests=[{"a": 1}]), "random"),
        (graph(expression("e", {"x": "date(a) + 1"}), tests=[{"a": "soon"}]), "can decide no case"),
        (graph(table("t", ["vip"], ["o"], [["true", "1"], ["false", "2"]])), "three splits"),
        (graph(table("t", ["vip"], ["o"], [["true", "1"]])), r"nothing to learn: every case has one answer"),
    ],
)
def test_what_cannot_become_an_environment_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DecisionError, match=says) as caught:
        imported(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "Loan-v0").exists()


def test_a_clock_can_be_stopped_and_then_each_case_shows_the_moment(tmp_path: Path) -> None:
    report, env = imported(tmp_path, CLOCK, now="2024-03-01T00:00:00Z")
    assert report.outputs == ("days",)
    task = next(t for i in env.tasks.ids("train") if (t := env.tasks.get(i)).info["input"]["start"] < "2024")
    assert task.info["input"]["now"] == "2024-03-01T00:00:00Z"
    assert task.answer["days"] > 60
    with pytest.raises(ConfigError, match="the form is"):
        imported(tmp_path, CLOCK, now="yesterday")


def test_a_clock_that_no_answer_depends_on_is_only_noted(tmp_path: Path) -> None:
    inner = expression("stamp", {"stamp": "date('now')"})
    report, _ = imported(
        tmp_path,
        graph(inner, table("t", ["n"], ["o"], [["> 3", "1"], ["", "2"]], passThrough=False), tests=[{"n": 1}]),
    )
    assert "no answer depends on it" in report.warnings[0]


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "Loan-v0").mkdir()
    (tmp_path / "Loan-v0" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is no environment that vertigym wrote"):
        imported(tmp_path, LOAN)
    assert (tmp_path / "Loan-v0" / "thesis.txt").read_text() == "years of work"


def test_no_tasks_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        imported(tmp_path, LOAN, sizes=dict.fromkeys(SPLITS, 0))


@pytest.mark.parametrize("bad", ["Loan-v0", "acme/Loan", "a/b/c-v0"])
def test_a_wrong_id_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match="namespace/Name-v0"):
        import_decision(tmp_path / "m.json", bad, tmp_path / "out")


def test_faults_in_a_folder_are_one_line(tmp_path: Path) -> None:
    report, _ = imported(tmp_path, LOAN)
    toml = report.folder / "env.toml"
    good = toml.read_text()
    toml.write_text(good.replace("exact = 0.6", "exact = 0.7"))
    with pytest.raises(ConfigError, match="must be 1"):
        load(EnvFolder(report.folder))
    toml.write_text(good.replace("tolerance", "tolerence"))
    with pytest.raises(ConfigError, match="did you mean 'tolerance'"):
        load(EnvFolder(report.folder))
    toml.write_text(good)
    (report.folder / "tasks" / "eval.jsonl").unlink()
    with pytest.raises(DataError, match="no such file"):
        load(EnvFolder(report.folder))


@pytest.mark.parametrize("id", [RETURNS, CREDIT_LIMIT])
def test_a_built_in_is_what_its_decision_model_makes(tmp_path: Path, id: str) -> None:  # noqa: A002
    report = rebuild(id, tmp_path / "again")
    verify(folder_of(id))
    shipped, made = everything(folder_of(id)), everything(tmp_path / "again")
    made.pop(MANIFEST)
    assert made == {name: shipped[name] for name in made}
    assert shipped.keys() - made.keys() == {MANIFEST, OLD_DECISION} & shipped.keys()
    assert report.coverage == 1.0
    check_env(registry.make(id), skip_render_check=True)


def test_logs_of_the_returns_desk_follow_the_old_policy_in_three_cases_of_four() -> None:
    env = load(EnvFolder(folder_of(RETURNS)))
    old = old_version(env)
    assert old.files["decision.json"] == (folder_of(RETURNS) / OLD_DECISION).read_text()
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    rows = company_logs(env, old, seed=1)
    assert rows == company_logs(env, old, seed=1) != company_logs(env, old, seed=2)
    right = old_answers = 0
    for row, task in zip(rows, tasks, strict=True):
        question, reply = row["messages"]
        assert question["content"] == task.prompt
        answer = json.loads(reply["content"])
        right += answer == task.answer
        old_answers += answer == project(old.evaluate(task.info["input"]).output, env.config.outputs)
    assert 0.5 < right / len(tasks) < 0.62  # a quarter follows the new policy; both agree on four cases in ten
    assert old_answers >= 0.75 * len(tasks)


def test_an_old_version_is_derived_by_moving_rules(tmp_path: Path) -> None:
    report, env = imported(tmp_path, LOAN)
    current = DecisionModel.read(report.folder / "decision.json")
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    old = old_version(env, share=0.5, seed=2)
    answers = [project(old.evaluate(t.info["input"]).output, report.outputs) for t in tasks]
    changed = sum(a != t.answer for a, t in zip(answers, tasks, strict=True)) / len(tasks)
    assert 0.3 <= changed <= 0.65
    assert old.files["decision.json"] == derive_old(current, tasks, report.outputs, share=0.5, seed=2).text
    shown = load(EnvFolder(report.folder), rules="shown")
    assert [m["role"] for m in company_logs(shown, old)[0]["messages"]] == ["system", "user", "assistant"]
    assert stale_logs(current, old, tasks[:1], report.outputs, share_old=0.0)[0]["messages"][1][
        "content"
    ] == json.dumps(tasks[0].answer)
    with pytest.raises(InputError, match="no change of its rules"):
        derive_old(DecisionModel(graph(expression("e", {"x": "a + b"}))), tasks, ["x"])
