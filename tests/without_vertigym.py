"""Plays recorded episodes through an exported OpenEnv server where vertigym is not installed, and prints
their scores: `python -I -S without_vertigym.py SITE PACKAGE MODULE RECORDED.json`."""

import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

site, package, module, recorded = sys.argv[1:]
sys.path += [package, site]
assert find_spec("vertigym") is None, "this Python knows vertigym"
app = importlib.import_module(module).app
assert "torch" not in sys.modules

from starlette.testclient import TestClient  # noqa: E402 (SITE has to be known first)

told, found = json.loads(Path(recorded).read_text()), dict[str, Any]()
with TestClient(app, base_url="http://localhost").websocket_connect("ws://localhost/ws") as session:
    for task, said in told["said"].items():
        session.send_json({"type": "reset", "data": {"task": task}})
        data = session.receive_json()["data"]
        for text in said:
            session.send_json({"type": "step", "data": {"message": text}})
            data = session.receive_json()["data"]
        found[task] = data["reward"]
print(json.dumps(found))
