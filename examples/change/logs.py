"""Logs for the warm start: decisions of the weeks after the change, three in four still by the old rules.

python examples/change/logs.py environments/expenses runs/expenses-logs.jsonl
"""

import sys
from pathlib import Path

from vertigym import envs
from vertigym.core.files import write_jsonl
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.stale import company_logs, old_version

if __name__ == "__main__":
    name, out = sys.argv[1:]
    env = envs.make(name)
    assert isinstance(env, DecisionEnv)
    write_jsonl(Path(out), company_logs(env, old_version(env), share_old=0.75))
