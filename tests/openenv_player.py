"""OpenEnv's own client plays recorded episodes: `python openenv_player.py URL RECORDED.json`."""

import json
import sys
from pathlib import Path
from typing import Any

from openenv.core.generic_client import GenericEnvClient

told, found = json.loads(Path(sys.argv[2]).read_text()), dict[str, Any]()
with GenericEnvClient(base_url=sys.argv[1]).sync() as env:
    for task, said in told["said"].items():
        result = env.reset(task=task)
        for text in said:
            assert not result.done
            result = env.step({"message": text})
        assert result.done
        found[task] = result.reward
print(json.dumps(found))
