"""From a decision model to an agent environment: cases become requests, and every task is proven fair.

`import_decision` samples the cases and asks the engine; here each becomes a case in a database and a request
about it. Facts are withheld from the file only where they matter: some other known value would change the
decision, so that who does not find out can only guess.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.core.manifest import claim_folder
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Split, Task
from vertigym.decisions.conditions import put
from vertigym.decisions.formats import ReadOptions
from vertigym.decisions.model import Case, CaseError, DecisionError
from vertigym.decisions.outputs import project
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.agent.config import AgentConfig, config_text, schema_of
from vertigym.envs.agent.customer import fact_text, misspell
from vertigym.envs.agent.database import build_world, person, scalars, stored_cases
from vertigym.envs.agent.env import AgentEnv, system_text
from vertigym.envs.agent.expert import known_values, play_expert, request, why_unfair
from vertigym.envs.decision.config import FOLDER, DecisionConfig, Rules, write_folder
from vertigym.envs.decision.importer import DecisionImportReport, import_decision
from vertigym.envs.decision.scripts import SANDBOXED
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import Tasks, TaskSet

SIZES: Mapping[Split, int] = {"train": 600, "eval": 150, "test": 250}
_TRIED = 3  # other values tried for a fact, to see whether it matters
_LONGEST_FACT = 60  # characters; longer texts stay on file
_ATTEMPTS = 50  # customers drawn until a request is like no other


def import_agent(
    file: Path,
    id: str,  # noqa: A002 (the registry's name for it)
    out: Path,
    *,
    rules: Rules = "hidden",
    seed: int = 0,
    sizes: Mapping[Split, int] | None = None,
    outputs: Sequence[str] = (),
    now: str | None = None,
    description: str = "",
    keep: Sequence[str] = (),
    settings: Sequence[str] = (),
    how: ReadOptions = SANDBOXED,
    force: bool = False,
) -> DecisionImportReport:
    """Turn the decision model in `file` into the agent environment folder `out`; arguments as in
    `import_decision` (by default the sizes are `SIZES`), and `settings` are keys of `env.toml` on top
    (`database.cases=100`).

    Raises:
        DecisionError: the model cannot be used, or no task made from it is fair. ConfigError: a wrong setting.
    """
    sizes = sizes or SIZES
    claim_folder(out, FOLDER, force=force)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        report = import_decision(
            file,
            id,
            base,
            rules=rules,
            seed=seed,
            sizes=sizes,
            outputs=outputs,
            now=now,
            description=description,
            how=how,
            contrast=False,  # near twins and distractors are made in the database, not drawn here
        )
        folder = EnvFolder(base)
        cases, plain = folder.tasks(), folder.config(DecisionConfig)
        tasks = [task for split in SPLITS for task in _repeated(cases, split, sizes[split])]
        shared = plain.model_dump(exclude={"kind", "weights"})
        schema = {"decision": schema_of(task.answer for task in tasks)}
        config = parse(AgentConfig, {**shared, "kind": "agent", **schema}, settings, source="settings")
        model = plain.model(folder, how.scripts)
        fair, unfair = _proven(_requests(tasks, config, model), config, model, system_text(config, folder))
        if not all(fair[split] for split in SPLITS):
            reason = unfair.most_common(1)[0][0] if unfair else "a split is empty"
            raise DecisionError(f"{file}: agent mode has no task that can be proven fair: {reason}")
        counts = {split: len(fair[split]) for split in SPLITS}
        few = [f"{w}; more than one customer asks about each" for w in report.warnings if "distinct cases" in w]
        kept = [w for w in report.warnings if "distinct cases" not in w]
        dropped = [f"{n} tasks left out, not proven fair: {why}" for why, n in unfair.most_common(1)]
        report = replace(report, folder=out, counts=counts, warnings=(*few, *kept, *dropped))
        readme = _readme(report, config, fair)
        write_folder(out, config_text(config), model.files, fair, readme, keep=keep, force=force)
        return report


def _repeated(cases: Tasks, split: Split, wanted: int) -> list[Task]:
    """The split's tasks; where they are fewer than wanted, more customers ask about the same cases."""
    tasks = [cases.get(i) for i in cases.ids(split)]
    if not tasks:
        raise ConfigError(f"agent mode needs cases in every split, and too few were found for {split}")
    rounds = -(-wanted // len(tasks))
    again = [t.model_copy(update={"id": f"{t.id}-{n}"}) for n in range(2, rounds + 1) for t in tasks]
    return [*tasks, *again][: max(wanted, len(tasks))]


def _requests(tasks: Sequence[Task], config: AgentConfig, model: RuleModel) -> list[Task]:
    """Each case as a request; no two read alike."""
    known = known_values(tasks)
    pool = stored_cases([task for task in tasks if task.split == "train"], config.seed)
    if len(pool) < 2:
        raise ConfigError("agent mode needs at least 2 cases in the train split, to fill the database")
    written: set[str] = set()
    made = []
    for task in tasks:
        rng = generator(config.seed, "request", task.id)
        withheld = _withheld(task, config, model, known, rng)
        info = {**task.info, **_customer_facts(task.info["input"], withheld, config, known, rng)}
        for attempt in range(_ATTEMPTS):
            (name, city), opened = person(task.id, config.seed, attempt)
            info |= {"name": name, "city": city, "opened": opened}
            case = build_world(task.model_copy(update={"info": info}), pool, config.database, config.seed).case
            stated = {fact: info["says"][fact] for fact in info["stated"]}
            text = request(name, city, case if info["case_known"] else f"of {opened}", stated)
            if text not in written:
                break
        written.add(text)
        made.append(task.model_copy(update={"prompt": text, "info": info}))
    return made


def _withheld(
    task: Task, config: AgentConfig, model: RuleModel, known: Mapping[str, Sequence[Any]], rng: Any
) -> list[str]:
    """Facts that are not on file: any of those that the decision depends on."""
    if rng.random() >= config.request.withheld:
        return []
    most = int(rng.integers(1, config.request.most + 1))
    facts = scalars(task.info["input"])
    found: list[str] = []
    for name in rng.permutation(sorted(facts)):
        if len(found) < most and len(fact_text(facts[name])) <= _LONGEST_FACT:
            others = [value for value in known[name] if value != facts[name]]
            tried = [others[int(i)] for i in rng.permutation(len(others))[:_TRIED]]
            if any(_differs(task, str(name), value, config, model) for value in tried):
                found.append(str(name))
    return found


def _differs(task: Task, name: str, value: Any, config: AgentConfig, model: RuleModel) -> bool:
    """Whether the decision is another one when the fact has this value."""
    path = tuple(name.split("."))
    try:
        output = model.evaluate(put(task.info["input"], path, value)).output
    except CaseError:
        return False
    return bool(project(output, config.outputs) != task.answer)


def _customer_facts(
    case: Case,
    withheld: Sequence[str],
    config: AgentConfig,
    known: Mapping[str, Sequence[Any]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What the customer says of each fact, and which facts the request states by itself."""
    says = {}
    for name, value in scalars(case).items():
        slips = name in withheld and isinstance(value, str) and rng.random() < config.customer.misspelt
        says[name] = misspell(value, known[name], rng) if slips else fact_text(value)
    stated = [name for name in withheld if rng.random() < config.request.stated]
    case_known = bool(rng.random() < config.request.case_known)
    return {"withheld": list(withheld), "stated": stated, "says": says, "case_known": case_known}


def _proven(
    tasks: Sequence[Task], config: AgentConfig, model: RuleModel, system: str
) -> tuple[dict[Split, list[Task]], Counter[str]]:
    """The tasks that are fair, with the expert's actions; and why the others are not."""
    env = AgentEnv(TaskSet(tasks), config, system=system)
    known = known_values(tasks)
    fair: dict[Split, list[Task]] = {split: [] for split in SPLITS}
    unfair: Counter[str] = Counter()
    for task in tasks:
        try:
            episode = play_expert(env, task, lambda c: project(model.evaluate(c).output, config.outputs), known)
            reason = why_unfair(env, episode)
        except (CaseError, LookupError, ValueError) as error:
            reason = f"the expert fails: {error}"
        if reason:
            unfair[reason[:200]] += 1
            continue
        lookups = len(episode.actions) - 2  # all but the decision and the end
        difficulty = task.info.get("difficulty", len(task.info["rules"])) + lookups
        proof = {"lookups": lookups, "difficulty": difficulty, "actions": list(episode.actions)}
        info = {**task.info, **proof}
        fair[task.split].append(task.model_copy(update={"info": info}))
    env.close()
    return fair, unfair


def _readme(report: DecisionImportReport, config: AgentConfig, tasks: Mapping[Split, Sequence[Task]]) -> str:
    counts = ", ".join(f"{report.counts[split]} {split}" for split in SPLITS)
    every = [task for split in SPLITS for task in tasks[split]]
    asking = sum(len(task.info["withheld"]) > len(task.info["stated"]) for task in every)
    lookups = [task.info["lookups"] for task in every]
    lines = [
        f"# {report.id}",
        "",
        *([config.description, ""] if config.description else []),
        "A customer asks for a decision. The policy looks the case up through tools, asks for what is not on",
        "file, and decides by `decision.json`; the final state of the database is judged.",
        "",
        f"- Tasks: {counts}; seed {config.seed}. In {asking} the customer must be asked for a fact.",
        f"- Look-ups and questions that the expert needs: {min(lookups)} to {max(lookups)}.",
        f"- Database: {config.database.customers} customers, {config.database.cases} cases.",
        f"- Decided: {', '.join(f'`{name}`' for name in report.outputs)}.",
        "- Proven for every task: the expert scores 1; doing nothing, deciding another case, deciding another",
        "  case as well, and changing a fact as well score 0.",
        *(f"- Note: {warning}." for warning in report.warnings),
    ]
    return "\n".join(lines) + "\n"
