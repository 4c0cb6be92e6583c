"""A small agent environment, and logs for its warm start, both made from tables of rules.

    python examples/agent/prepare.py environments/desk runs/agent-logs.jsonl

The environment is `vertigym env import examples/agent/desk.csv --mode agent`, kept small enough for a tiny
model: short tool names, no policy text, few customers, requests that give the case's number. A needless action
costs a tenth, or else nothing would teach a policy to end its work. The logs are episodes of experts who work
well and decide by last year's rules (`desk-old.csv`).
"""

import sys
from pathlib import Path

from vertigym.core.files import write_jsonl
from vertigym.core.types import Split
from vertigym.decisions.formats import read_model
from vertigym.envs.agent.env import load
from vertigym.envs.agent.expert import expert_logs
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.folders import EnvFolder

HERE = Path(__file__).parent
SIZES: dict[Split, int] = {"train": 600, "eval": 200, "test": 300}
TOOLS = ", ".join(
    f'{{ does = "{does}", name = "{does}" }}' for does in ("find", "list", "get", "decide", "finish")
)
SETTINGS = (
    f"tool=[{TOOLS}]",
    "policy=",
    "max_turns=6",
    "needless_cost=0.1",
    "database.customers=3",
    "database.cases=6",
    "customer.misspelt=0",
    "request.case_known=1",
    "request.withheld=0.4",
    "request.most=1",
)


def prepare(folder: Path, logs: Path) -> None:
    """Write the environment and the logs."""
    import_agent(HERE / "desk.csv", "desk/Desk-v0", folder, sizes=SIZES, settings=SETTINGS)
    env = load(EnvFolder(folder))
    write_jsonl(logs, expert_logs(env, read_model(HERE / "desk-old.csv")))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
