"""Logs for the warm start: decisions of the weeks after the change, three in four still by the old rules.

python examples/change/logs.py environments/expenses runs/expenses-logs.jsonl
"""

import sys
from pathlib import Path

from vertigym.core.files import write_jsonl
from vertigym.envs.decision.env import load
from vertigym.envs.decision.stale import company_logs, old_version
from vertigym.envs.folders import EnvFolder

if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:])
    env = load(EnvFolder(folder))
    write_jsonl(out, company_logs(env, old_version(env), share_old=0.75))
