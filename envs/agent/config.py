"""The folder of an agent environment: a decision environment's, with tools and a customer in `env.toml`.

Loan-v0/
  env.toml              kind = "agent": tools, policy text, database, customer, what is punished
  decision.json         the decision model: the expert's only source of answers
  tasks/train.jsonl     one Task a line: the request, and in `info` the case, who asks, what is not on file
  README.md
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import tomli_w
from pydantic import Field, field_validator, model_validator

from vertigym.core.config import Config
from vertigym.core.files import dumps
from vertigym.envs.decision.config import RulesConfig

Does = Literal["find", "list", "get", "decide", "change", "finish"]

_DEFAULT_TOOLS: Mapping[Does, tuple[str, str]] = {
    "find": ("find_customer", "Customers whose name contains this text: id, name, city."),
    "list": ("list_cases", "A customer's cases: id, the day it was opened, status."),
    "get": ("get_case", "A case: its facts, and which facts are not on file."),
    "decide": ("decide_case", "Decide a case. Decisions are final."),
    "change": ("change_case", "Write a fact of a case to the file."),
    "finish": ("finish", "End the work."),
}

_POLICY = """\
You handle customers' cases through tools, one call a turn, like this:
<tool_call>{{"name": "{get}", "arguments": {{"case": "R1"}}}}</tool_call>
A message without a tool call goes to the customer.
1. Names repeat: make sure that it is the right customer, and the right case.
2. Look a case up with {get} before you decide it. Ask the customer for facts that are not on file.
3. Decide with {decide} only the case that the customer asks for, by the rules, once.
4. Change nothing else. Call {finish} when you are done."""


class ToolConfig(Config):
    """One tool: what it does, and how the policy is told of it."""

    does: Does = Field(description="what a call of it does")
    name: str = Field(min_length=1, description="what the policy calls it")
    description: str = Field("", description="what the policy is told of it")


class DatabaseConfig(Config):
    """The size of an episode's database."""

    customers: int = Field(20, ge=3, le=2000, description="in it")
    cases: int = Field(40, ge=4, le=100_000, description="in it")


class CustomerConfig(Config):
    """Who answers questions: a script, or an LLM behind an endpoint."""

    misspelt: float = Field(0.2, ge=0, le=1, description="share of the texts said that hold a slip")
    endpoint: str = Field("", description="base URL of an OpenAI-compatible endpoint; empty: the script")
    model: str = Field("", description="the endpoint's")
    key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")

    @model_validator(mode="after")
    def _endpoint_needs_a_model(self) -> Self:
        if self.endpoint and not (self.model and self.endpoint.startswith(("http://", "https://"))):
            raise ValueError("customer.endpoint is an http(s) address, and customer.model names its model")
        return self


class RequestConfig(Config):
    """What requests are like; read when tasks are made."""

    withheld: float = Field(0.6, ge=0, le=1, description="share of tasks with facts that are not on file")
    most: int = Field(2, ge=1, description="facts withheld in one task, at most")
    stated: float = Field(0.3, ge=0, le=1, description="share of those that the request states")
    case_known: float = Field(0.3, ge=0, le=1, description="share of requests that give the case's number")


class AgentConfig(RulesConfig):
    """`env.toml` of an agent environment. `decision` is the JSON schema of what is decided."""

    kind: Literal["agent"]
    max_turns: int = Field(16, ge=2, description="then the episode ends")
    violations: Literal["block", "punish"] = Field("block", description="what becomes of forbidden actions")
    penalty: float = Field(1.0, ge=0, le=1, description="punish: what a violation takes off the score")
    needless_cost: float = Field(0.0, ge=0, le=1, description="what a needless action takes off the score")
    policy: str = Field("", description="the policy's instructions; empty: none")
    database: DatabaseConfig = DatabaseConfig()
    customer: CustomerConfig = CustomerConfig()
    request: RequestConfig = RequestConfig()
    tool: tuple[ToolConfig, ...] = ()
    decision: dict[str, Any] = Field({}, description="JSON schema of a decision")

    @field_validator("tool")
    @classmethod
    def _the_needed_tools_once(cls, tools: tuple[ToolConfig, ...]) -> tuple[ToolConfig, ...]:
        names, actions = [t.name for t in tools], [t.does for t in tools]
        if len(set(names)) < len(names) or len(set(actions)) < len(actions):
            raise ValueError("two tools share a name or do the same")
        if tools and (missing := {"find", "list", "get", "decide", "finish"} - set(actions)):
            raise ValueError(f"no tool does {', '.join(sorted(missing))}")
        return tools

    @model_validator(mode="before")
    @classmethod
    def _tools_and_policy(cls, given: Any) -> Any:
        """Where they are not said: the usual tools, and a policy text that names them."""
        if not isinstance(given, dict):
            return given
        usual = [{"does": does, "name": n, "description": d} for does, (n, d) in _DEFAULT_TOOLS.items()]
        tools = given.get("tool") or usual
        names = {t["does"]: t["name"] for t in tools if isinstance(t, dict) and "does" in t and "name" in t}
        policy = {} if "policy" in given else {"policy": _POLICY.format(**_usual_names() | names)}
        return {**given, "tool": tools, **policy}

    def name_of(self, does: Does) -> str:
        """What the tool that does this is called; empty where there is none."""
        return next((t.name for t in self.tool if t.does == does), "")


def _usual_names() -> dict[str, str]:
    return {does: name for does, (name, _) in _DEFAULT_TOOLS.items()}


def config_text(config: AgentConfig) -> str:
    """`env.toml`."""
    table = config.model_dump(mode="json")
    return "# docs/agents.md says what each key does.\n" + tomli_w.dumps(table, multiline_strings=True)


def schema_of(answers: Iterable[Any], *, most: int = 12) -> dict[str, Any]:
    """The JSON schema that describes all of `answers`: types, fields, and up to `most` texts by name."""
    return _schema(list(answers), most)


def _schema(seen: Sequence[Any], most: int) -> dict[str, Any]:
    records = [value for value in seen if isinstance(value, dict)]
    if records and len(records) == len(seen):
        keys = list(dict.fromkeys(key for record in records for key in record))
        return {
            "type": "object",
            "properties": {key: _schema([r[key] for r in records if key in r], most) for key in keys},
            "required": [key for key in keys if all(key in record for record in records)],
            "additionalProperties": False,
        }
    kinds = sorted({_kind(value) for value in seen})
    schema: dict[str, Any] = {"type": kinds[0]} if len(kinds) == 1 else {"type": kinds} if kinds else {}
    texts = sorted({value for value in seen if isinstance(value, str)})
    if kinds == ["string"] and len(texts) <= most:
        schema["enum"] = texts
    if kinds == ["array"] and (items := [item for value in seen for item in value]):
        schema["items"] = _schema(items, most)
    return schema


def fits(value: Any, schema: Mapping[str, Any]) -> str:
    """What is wrong with the shape of `value` (types and fields; not which texts), or nothing."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and _kind(value) not in kinds:
        return f"{dumps(kinds[0] if len(kinds) == 1 else kinds)} is asked for, not {_kind(value)}"
    fields = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(fields, Mapping):
        return ""
    if missing := [key for key in schema.get("required", ()) if key not in value]:
        return f"{dumps(missing[0])} is missing"
    for key, item in value.items():
        if key in fields and (fault := fits(item, fields[key])):
            return f"{dumps(key)}: {fault}"
        if key not in fields and not schema.get("additionalProperties", True):
            return f"there is no field {dumps(key[:40])}"
    return ""


def _kind(value: Any) -> str:
    """The JSON type's name in a schema."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case dict():
            return "object"
    return "array"
