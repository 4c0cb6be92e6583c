"""The agent environment: a request, a database behind tools, a customer to ask; the final state is judged.

    env = load(EnvFolder(Path("environments/loan-agent")))
    observation, info = env.reset(options={"split": "eval"})
    observation, *_ = env.step('<tool_call>{"name": "get_case", "arguments": {"case": "R7"}}</tool_call>')

The score is 1 when the right decision stands on the right case *and nothing else has changed*, else 0; what
configuration takes off for violations and needless actions comes off that. The engine is not needed to play.

Rules of conduct, the same in every environment: an unseen case is not decided or changed, nor is somebody
else's, nor is a case decided twice. An action against them is blocked, or carried out and punished.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.errors import InfrastructureError
from vertigym.core.files import dumps
from vertigym.core.types import Message, Score, Task
from vertigym.decisions.conditions import put
from vertigym.envs.agent.config import AgentConfig, Does, fits
from vertigym.envs.agent.customer import Customer, EndpointCustomer, ScriptedCustomer
from vertigym.envs.agent.database import DECIDED, Database, World, build_world, stored_cases
from vertigym.envs.decision.prompts import rules_text
from vertigym.envs.env import Env, Turn
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import Tasks
from vertigym.envs.tool_calls import is_call, tool, tool_call
from vertigym.rewards.decision import DecisionVerifier
from vertigym.rewards.state import compare_states, sqlite_state

_FOUND = 10  # customers shown at once
_LONGEST = 100_000  # characters of an action that are read
_TEXT = {"type": "string"}
State = dict[str, dict[str, dict[str, Any]]]  # table -> id -> column -> value


class AgentEnv(Env):
    """A decision model's environment in agent mode; `config` is its `env.toml`, `system` the first message."""

    def __init__(
        self, tasks: Tasks, config: AgentConfig, *, system: str = "", folder: EnvFolder | None = None
    ) -> None:
        super().__init__(tasks)
        self.config, self.system, self.folder = config, system, folder
        self.max_turns = config.max_turns
        self.parallel_steps = 8 if config.customer.endpoint else 1
        self.tools = [tool(t.name, t.description, _parameters(t.does, config.decision)) for t in config.tool]
        self._does: dict[str, Does] = {t.name: t.does for t in config.tool}
        self._needs = {t["function"]["name"]: t["function"]["parameters"] for t in self.tools}
        self._pool = stored_cases([tasks.get(i) for i in tasks.ids("train")], config.seed)
        self._equal = DecisionVerifier(tolerance=config.tolerance).equal
        self._database: Database | None = None
        self._world: World | None = None
        self._image = b""  # the world's database, as it was filled
        self._customer: Customer = ScriptedCustomer({})
        self._needed: frozenset[str] = frozenset()  # what a perfect episode does, by name
        self._done: set[str] = set()
        self._seen: set[str] = set()
        self._violations: list[str] = []
        self._needless = 0

    def begin(self, task: Task) -> Sequence[Message]:
        """Fill a database; the request."""
        self.close()
        if self._world is None or self._world.task != task.id:  # replayed tasks keep their world
            self._world = build_world(task, self._pool, self.config.database, self.config.seed)
            self._image = b""
        self._database = Database(self._world, self._image)
        self._image = self._database.image
        said: Mapping[str, str] = task.info["says"]
        self._customer = ScriptedCustomer(said)
        if self.config.customer.endpoint:
            self._customer = EndpointCustomer(self.config.customer, said, str(task.prompt))
        asked = {f"ask {name}" for name in task.info["withheld"] if name not in task.info["stated"]}
        search = set() if task.info["case_known"] else {"find", "list"}
        self._needed = frozenset({"get", "decide", "finish"} | asked | search)
        self._done, self._seen, self._violations, self._needless = set(), set(), [], 0
        opening: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return opening + task.messages()

    def respond(self, action: str) -> Turn:
        """What the tool gives, or what the customer says; the verdict at the end."""
        before = len(self._done & self._needed)
        answer = self._answer(action[:_LONGEST])
        self._needless += len(self._done & self._needed) == before
        return answer if answer is not None else Turn(score=self._judge())

    def _answer(self, action: str) -> Turn | None:
        """The answer to an action; None where it ends the episode."""
        try:
            if not is_call(action):
                return self._speak(action)
            name, arguments = tool_call(action)
            does = self._does.get(name)
            if does is None:
                return _error(f"there is no tool {dumps(name[:40])}; there are {', '.join(self._does)}")
            if fault := fits(arguments, self._needs[name]) or _unfit(arguments):
                return _error(f"{name}: {fault}")
            if does == "finish":
                self._done.add("finish")
                return None
            return getattr(self, f"_{does}")(**arguments)  # type: ignore[no-any-return]
        except InfrastructureError as error:
            return Turn(score=Score.unscored(f"{type(error).__name__}: {error}"))
        except (ValueError, RecursionError) as error:
            return _error(str(error) or "nested too deeply")

    def close_episode(self) -> Score:
        """Out of turns: the state is judged as it is."""
        return self._judge()

    def close(self) -> None:
        """Free the database."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def fresh(self) -> "AgentEnv":
        """Another instance; its episodes have databases of their own."""
        other = super().fresh()
        assert isinstance(other, AgentEnv)
        other._database = None
        return other

    def reference(self, task: Task) -> Sequence[str] | None:
        """The expert's actions, as proven when the task was made."""
        actions: Sequence[str] | None = task.info.get("actions")
        return actions

    def subject(self, task: Task) -> Any:
        """The case that the customer asks about."""
        return task.info.get("input")

    def rules(self) -> list[str]:
        """The rules not proven unreachable."""
        return self.config.reachable(self.folder) if self.folder else []

    # The tools. Arguments fit their schemas.

    def _find(self, name: str) -> Turn:
        if not name.strip():
            return _error("give a name, or a part of one")
        found = self._db.find(name.strip(), _FOUND)
        if any(row[0] == self.world.customer for row in found):
            self._done.add("find")
        return _tell({"customers": [{"id": i, "name": n, "city": c} for i, n, c in found]})

    def _list(self, customer: str) -> Turn:
        if customer == self.world.customer:
            self._done.add("list")
        rows = self._db.cases_of(customer)
        return _tell({"cases": [{"case": i, "opened": day, "status": status} for i, day, status in rows]})

    def _get(self, case: str) -> Turn:
        row = self._row(case)
        self._seen.add(case)
        if case == self.world.case:
            self._done.add("get")
        shown = {"case": case, "customer": row["customer"], "opened": row["opened"], "status": row["status"]}
        decision = {"decision": json.loads(row["decision"])} if row["decision"] is not None else {}
        missing = json.loads(row["missing"])
        return _tell({**shown, "facts": json.loads(row["facts"]), "not_on_file": missing, **decision})

    def _decide(self, case: str, decision: Any) -> Turn:
        row = self._row(case)
        if blocked := self._against(row, "decide"):
            return blocked
        if case == self.world.case:
            self._done.add("decide")
        self._db.decide(case, _written(decision))
        return _tell({"case": case, "status": DECIDED})

    def _change(self, case: str, fact: str, value: Any) -> Turn:
        row = self._row(case)
        if blocked := self._against(row, "change"):
            return blocked
        facts = put(json.loads(row["facts"]), tuple(fact.split(".")), value)
        missing = [name for name in json.loads(row["missing"]) if name != fact]
        self._db.put_facts(case, _written(facts), _written(missing))
        return _tell({"case": case, fact: value})

    def _speak(self, said: str) -> Turn:
        answer, given = self._customer.reply(said)
        self._done |= {f"ask {name}" for name in given}
        return Turn(messages=[{"role": "user", "content": answer}])

    # What holds them together.

    @property
    def _db(self) -> Database:
        assert self._database is not None
        return self._database

    @property
    def world(self) -> World:
        """The current episode's database, as it was at the beginning."""
        assert self._world is not None
        return self._world

    def _row(self, case: str) -> dict[str, Any]:
        row = self._db.case(case)
        if row is None:
            raise ValueError(f"there is no case {dumps(case[:40])}")
        return row

    def _against(self, row: Mapping[str, Any], does: Does) -> Turn | None:
        """Note an action against the rules of conduct; the refusal where such actions are blocked."""
        broken = ""
        if row["customer"] != self.world.customer:
            broken = "the case is another customer's"
        elif row["id"] not in self._seen:
            broken = "look the case up first"
        elif does == "decide" and row["status"] == DECIDED:
            broken = "the case is decided, and decisions are final"
        if not broken:
            return None
        self._violations.append(broken)
        return _error(f"blocked: {broken}") if self.config.violations == "block" else None

    def _judge(self) -> Score:
        """The final state against the goal, less what violations and needless actions cost."""
        before, after = self.world.state(), sqlite_state(self._db.connection)
        goal = {"cases": {self.world.case: {"status": DECIDED, "decision": dumps(self.task.answer)}}}
        score = compare_states(*_differing(before, after, self.world.case), goal, equal=self._same)
        if score.value is None:
            return score
        looked = {name for name in self._needed if name not in ("decide", "finish")}
        punished = self.config.penalty if self._violations and self.config.violations == "punish" else 0.0
        value = score.value * max(0.0, 1.0 - punished - self.config.needless_cost * self._needless)
        parts = {
            "solved": score.value,
            **score.parts,
            "lookups": len(looked & self._done) / len(looked),
            "violations": float(len(self._violations)),
            "needless": float(self._needless),
        }
        violated = {"violated": self._violations[:10]} if self._violations else {}
        return Score(value, parts, {**score.evidence, **violated})

    def _same(self, one: Any, other: Any) -> bool:
        """Columns are equal as text, or as the JSON in it, numbers within the tolerance."""
        if one == other:
            return True
        if not (isinstance(one, str) and isinstance(other, str)):
            return False
        try:
            return self._equal(json.loads(one), json.loads(other))
        except (ValueError, RecursionError):
            return False


def load(folder: EnvFolder, **changes: Any) -> AgentEnv:
    """Open an agent environment's folder; `changes` replace keys of its `env.toml` (`violations="punish"`).

    Raises:
        InputError: the folder's files are missing or wrong (one line says what).
    """
    config = folder.config(AgentConfig, **changes)
    if config.customer.endpoint and "customer" not in changes:
        folder.needs_trust(f"it sends requests to {config.customer.endpoint}")
    return AgentEnv(folder.tasks(), config, system=system_text(config, folder), folder=folder)


def system_text(config: AgentConfig, folder: EnvFolder) -> str:
    """The policy text, and the rules where they are shown."""
    rules = rules_text(config.model(folder)) if config.rules == "shown" else ""
    return "\n\n".join(part for part in (config.policy, rules) if part)


def _differing(before: State, after: State, case: str) -> tuple[State, State]:
    """Two states without the records that are the same in both: most are. The task's case is kept."""
    found: tuple[State, State] = ({}, {})
    for state, other, kept in ((before, after, found[0]), (after, before, found[1])):
        for table, rows in state.items():
            others = other.get(table, {})
            kept[table] = {key: row for key, row in rows.items() if key == case or others.get(key) != row}
    return found


def _parameters(does: Does, decision: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schemas of a tool's arguments, by name."""
    case = {"type": "string", "description": "a case's id"}
    parameters: dict[Does, dict[str, Any]] = {
        "find": {"name": _TEXT},
        "list": {"customer": {"type": "string", "description": "a customer's id"}},
        "get": {"case": case},
        "decide": {"case": case, "decision": dict(decision)},
        "change": {"case": case, "fact": {"type": "string", "description": "dotted name"}, "value": {}},
        "finish": {},
    }
    return parameters[does]


def _unfit(arguments: Mapping[str, Any]) -> str:
    """Texts that no database holds, and arguments beyond the schema, are refused."""
    for value in arguments.values():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return "a text with half a character"
    return ""


def _written(value: Any) -> str:
    """JSON for a column; ASCII, so that any text fits, and NaN is refused.

    Raises:
        ValueError: not JSON, or more than the column takes.
    """
    return json.dumps(value, allow_nan=False)


def _tell(content: Mapping[str, Any]) -> Turn:
    return Turn(messages=[{"role": "tool", "content": dumps(content)}])


def _error(message: str) -> Turn:
    return Turn(messages=[{"role": "tool", "content": dumps({"error": message})}])
