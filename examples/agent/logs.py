"""Logs for the warm start: how an expert of last year's rules worked an agent environment's training requests.

python examples/agent/logs.py environments/desk examples/agent/decision-old.json runs/agent-logs.jsonl
"""

import sys
from pathlib import Path

from vertigym.core.files import write_jsonl
from vertigym.envs.business.agent import load
from vertigym.envs.business.expert import expert_logs
from vertigym.envs.business.model import DecisionModel

if __name__ == "__main__":
    folder, old, out = map(Path, sys.argv[1:])
    write_jsonl(out, expert_logs(load(folder), DecisionModel.read(old)))
