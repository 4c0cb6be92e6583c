"""A small agent environment, and logs for its warm start, both made from decision models.

    python examples/agent/prepare.py environments/desk runs/agent-logs.jsonl

The environment is `vertigym env import examples/agent/decision.json --mode agent`, kept small enough for a tiny
model: short tool names, no policy text, few customers, requests that give the case's number. The logs are
episodes of experts who work well and decide by last year's rules (`decision-old.json`).
"""

import sys
from pathlib import Path

from vertigym.core.files import write_jsonl
from vertigym.envs.business.agent import load
from vertigym.envs.business.agent_import import import_agent
from vertigym.envs.business.expert import expert_logs
from vertigym.envs.business.model import DecisionModel

HERE = Path(__file__).parent
TOOLS = ", ".join(
    f'{{ does = "{does}", name = "{does}" }}' for does in ("find", "list", "get", "decide", "finish")
)
SETTINGS = (
    f"tool=[{TOOLS}]",
    "policy=",
    "max_turns=6",
    "database.customers=3",
    "database.cases=6",
    "customer.misspelt=0",
    "request.case_known=1",
    "request.withheld=0.4",
    "request.most=1",
)


def prepare(folder: Path, logs: Path) -> None:
    """Write the environment and the logs."""
    import_agent(HERE / "decision.json", "desk/Desk-v0", folder, settings=SETTINGS)
    write_jsonl(logs, expert_logs(load(folder), DecisionModel.read(HERE / "decision-old.json")))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
