"""Scores recorded answers as Harbor's verifier would, by each task's own `score.py`, in one process without
vertigym: `python -I -S harbor_player.py SITE TASKS RECORDED.json`."""

import json
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

site, tasks, recorded = sys.argv[1:]
sys.path.append(site)
assert find_spec("vertigym") is None, "this Python knows vertigym"
told, found = json.loads(Path(recorded).read_text()), dict[str, Any]()
answer, logs = Path(tasks, "answer.txt"), Path(tasks, "logs")
os.environ |= {"VERTIGYM_ANSWER": str(answer), "VERTIGYM_LOGS": str(logs)}
for file in Path(tasks).glob("*-eval-*/tests/task.json"):
    task = json.loads(file.read_text())["task"]
    if task not in told["said"]:
        continue
    answer.write_text(told["said"][task][-1])
    (logs / "reward.json").unlink(missing_ok=True)
    try:
        runpy.run_path(str(file.with_name("score.py")), run_name="__main__")
        found[task] = json.loads((logs / "reward.json").read_text())["reward"]
    except SystemExit:  # not scored
        found[task] = None
print(json.dumps(found))
