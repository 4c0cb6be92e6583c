"""Agents that others wrote, as their own documentation has them: of what is around them they know an address.

Each answers a question, and most look something up with a tool on their way.
"""

from dataclasses import dataclass, field
from typing import Any

from .programs import CALL

_BASH = '<tool_call>{"name": "bash", "arguments": {"command": "%s"}}</tool_call>'


@dataclass(frozen=True)
class ForeignProgram:
    """A script around the package `module`. `replies`: what a good model answers its calls with, where the
    answer is 0; `keys`: of its env.toml."""

    module: str
    script: str
    replies: tuple[str, ...]
    keys: dict[str, Any] = field(default_factory=dict)


HTTPX = """
import json, os, sys, httpx
key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
client = httpx.Client(base_url=os.environ["OPENAI_BASE_URL"], headers=key, timeout=60)
chat = [{"role": "user", "content": json.load(sys.stdin)["prompt"]}]
for follow in ("Are you sure?", ""):
    done = client.post("/chat/completions", json={"model": "m", "messages": chat}).raise_for_status()
    chat += [done.json()["choices"][0]["message"], {"role": "user", "content": follow}]
print(chat[-2]["content"])
"""
AGENTS = """
import json, sys
from agents import Agent, Runner, function_tool, set_tracing_disabled
from agents.exceptions import AgentsException
set_tracing_disabled(True)

@function_tool
def find(a: int) -> str:
    "Find it."
    return f"found {a}"

helper = Agent(name="helper", instructions="help", model="m")
tools = [find, helper.as_tool("ask", "Ask the helper.")]
agent = Agent(name="main", instructions="find it", tools=tools, model="m")
try:
    print(Runner.run_sync(agent, json.load(sys.stdin)["prompt"], max_turns=5).final_output)
except AgentsException as error:  # the model called what is not there, or went on for ever
    print(type(error).__name__)
"""
LANGGRAPH = """
import json, sys
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

@tool
def find(a: int) -> str:
    "Find it."
    return f"found {a}"

agent = create_react_agent(ChatOpenAI(model="m"), [find])
done = agent.invoke({"messages": [("user", json.load(sys.stdin)["prompt"])]})
print(done["messages"][-1].content)
"""
# The command line of mini-swe-agent, with the configuration that it ships and a limit to its steps.
MINI = """
import json, os, sys
task = json.load(sys.stdin)["prompt"] + " in answer.txt"
mini = ["-m", "minisweagent", "--yolo", "--exit-immediately", "-m", "openai/m", "-t", task]
os.execv(sys.executable, [sys.executable, *mini, "-c", "mini.yaml", "-c", "agent.step_limit=4"])
"""
_MINI_KEYS = {
    "output": "answer.txt",
    "environment": {
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "1",
    },
}
PROGRAMS = {
    "httpx": ForeignProgram("httpx", HTTPX, ("0", "0")),
    "openai-agents": ForeignProgram(
        "agents",
        AGENTS,
        (CALL, CALL.replace("find", "ask").replace('{"a": 1}', '{"input": "who"}'), "me", "0"),
        {"ignored": ["strict"]},
    ),
    "langgraph": ForeignProgram("langgraph", LANGGRAPH, (CALL, "0")),
    "mini-swe-agent": ForeignProgram(
        "minisweagent",
        MINI,
        (_BASH % "echo 0 > answer.txt", _BASH % "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),
        _MINI_KEYS,
    ),
}
