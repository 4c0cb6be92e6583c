"""A decision model's JavaScript, run in a sandbox: no network, no files, 1 GB, three seconds a case."""

import json
from typing import Any

from vertigym.core.errors import SandboxError
from vertigym.decisions.formats import ReadOptions
from vertigym.decisions.model import Case, CaseError, Decide, DecisionError, first_lines
from vertigym.sandboxes.cross_calls import RemoteError
from vertigym.sandboxes.live_program import LiveProgram

_SECONDS = 3.0
_PROGRAM = """
import json, os
os.environ["TOKIO_WORKER_THREADS"] = "1"
import zen

content = zen.ZenDecisionContent(MODEL)
engine = zen.ZenEngine({"loader": lambda key: content})

def decide(case):
    return json.dumps(engine.evaluate("decision", json.loads(case), {"trace": True}))
"""


def sandboxed(text: str) -> Decide:
    """An engine in a sandbox that holds the model. What ends it (no answer in time, too much memory, a result
    nested too deeply) is a fault of the model, and raises DecisionError.

    Raises:
        DecisionError: there is no sandbox on this machine.
    """
    try:
        program = LiveProgram(f"MODEL = {text!r}\n{_PROGRAM}", packages=("zen",))
    except SandboxError as error:
        raise DecisionError(
            f"the model has JavaScript, and no sandbox can run it ({error}); --trust runs it unprotected"
        ) from None

    def beyond(reason: str, case: Case) -> str:
        return f"the model's JavaScript is out of bounds: {reason}, in {json.dumps(case)[:200]}"

    def decide(case: Case) -> Any:
        try:
            return json.loads(program.call("decide", json.dumps(case), within_s=_SECONDS))
        except RemoteError as error:
            reason = first_lines(str(error).partition(": ")[2])
            if "out of memory" not in reason:
                raise CaseError(reason) from None
            raise DecisionError(beyond(reason, case)) from None  # the next case would take as long
        except SandboxError as error:
            raise DecisionError(beyond(str(error), case)) from None

    return decide


SANDBOXED = ReadOptions(scripts=sandboxed)
"""How files of somebody else's are read."""
