"""JavaScript in a decision model decides as before, in a sandbox: it reaches no network, and nothing hangs."""

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.test_envs_decision_import import graph, table
from vertigym.cli import app
from vertigym.core.errors import DataError
from vertigym.decisions.formats import read_model
from vertigym.decisions.model import CaseError, DecisionError, DecisionModel, first_lines, in_process
from vertigym.envs.decision.diff import compare_files
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.decision.scripts import SANDBOXED, sandboxed

FEES = table("fees", ["amount"], ["fee"], [["> 100", "5"], ["", "1"]])
GOOD = "export const handler = async (input) => ({...input, double: input.amount * 2})"


def script(source: str) -> dict[str, Any]:
    return {"id": "js", "name": "double", "type": "functionNode", "content": {"source": source}}


def model(source: str) -> str:
    return graph(script(source), FEES, tests=[{"amount": 120}, {"amount": 7}])


def test_a_script_decides_in_the_sandbox_what_it_decides_here() -> None:
    inside, here = DecisionModel(model(GOOD), "m", sandboxed), DecisionModel(model(GOOD), "m", in_process)
    for amount in (0, 7.5, 120, None):
        assert inside.evaluate({"amount": amount}) == here.evaluate({"amount": amount})
    assert inside.evaluate({"amount": 120}).output == {"amount": 120, "double": 240, "fee": 5}
    assert inside.evaluate({"amount": 120}).rules == ("fees:1",)


def test_without_an_engine_for_scripts_the_node_is_named_and_nothing_runs() -> None:
    found = DecisionModel(model(GOOD))
    assert found.scripts == ["double"]
    with pytest.raises(DecisionError, match="node 'double' is JavaScript"):
        found.evaluate({"amount": 1})
    assert DecisionModel(graph(FEES)).evaluate({"amount": 1}).output["fee"] == 1


def test_a_stopped_clock_keeps_the_engine() -> None:
    assert (
        DecisionModel(model(GOOD), "m", sandboxed).at("2026-01-01").evaluate({"amount": 3}).output["double"]
        == 6
    )


def test_an_error_in_a_script_refuses_one_case() -> None:
    thrown = "export const handler = async (i) => { if (i.amount < 5) throw new Error('too small'); return i }"
    found = DecisionModel(model(thrown), "m", sandboxed)
    with pytest.raises(CaseError, match="too small"):
        found.evaluate({"amount": 1})
    assert found.evaluate({"amount": 6}).output["fee"] == 1


HOSTILE = {
    "a promise that never resolves": "await new Promise(() => {}); return {}",
    "an endless loop": "while (true) {}",
    "four gigabytes": "const a = []; while (true) a.push(new Array(1e6).fill(Math.PI)); return {}",
    "a deep result": "let a = []; for (let k = 0; k < 100000; k++) a = [a]; return {a}",
    "a wide result": "return {a: 'x'.repeat(5e6)}",
}


@pytest.mark.parametrize("end", ["", "\nStack backtrace:\n  0: main\n"])
def test_an_error_of_many_lines_is_one_line(end: str) -> None:
    wrapped = json.dumps({"type": "NodeError", "source": "Error: out\nof memory\n  at handler (node:js)\n"})
    assert first_lines(wrapped + end) == "Error: out of memory at handler (node:js)"
    assert first_lines(f"not JSON\nat all{end}") == "not JSON at all"


@pytest.mark.parametrize("name", HOSTILE)
def test_what_goes_out_of_bounds_ends_the_import_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(model(f"export const handler = async (input) => {{ {HOSTILE[name]} }}"))
    with pytest.raises(DecisionError) as caught:
        import_decision(tmp_path / "m.json", "acme/Bad-v0", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_nested_deeply_but_fits_refuses_the_case() -> None:
    body = "let a = []; for (let k = 0; k < 300; k++) a = [a]; return {a}"
    source = f"export const handler = async (input) => {{ {body} }}"
    with pytest.raises(CaseError, match="nested"):
        DecisionModel(graph(script(source)), "m", sandboxed).evaluate({"amount": 1})


def test_a_script_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        reached: list[Any] = []

        def listen() -> None:
            try:
                reached.append(server.accept())
            except OSError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        call = f"(await http.get('{address}')).data"
        source = f"import http from 'http'; export const handler = async (i) => ({call})"
        found = DecisionModel(model(source), "m", sandboxed)
        with pytest.raises((CaseError, DecisionError)):
            found.evaluate({"amount": 1})
        server.close()
        thread.join()
    assert not reached


def test_a_model_with_a_script_becomes_an_environment_and_is_compared(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(model(GOOD))
    report = import_decision(tmp_path / "m.json", "acme/Fees-v0", tmp_path / "out")
    assert report.outputs == ("fee", "double")
    (tmp_path / "n.json").write_text(model(GOOD.replace("* 2", "* 3")))
    found = compare_files(tmp_path / "out", tmp_path / "n.json").difference()
    assert (found.nodes, found.share > 0.9) == (("double",), True)
    assert read_model(tmp_path / "m.json", SANDBOXED).evaluate({"amount": 2}).output["double"] == 4


@pytest.mark.parametrize("trusted", [False, True])
def test_trust_is_asked_for_on_the_command_line(
    trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no sandbox, a script runs only with --trust."""
    monkeypatch.setattr("vertigym.sandboxes.live_program.best_level", lambda: "docker")
    (tmp_path / "m.json").write_text(model(GOOD))
    command = ["env", "import", str(tmp_path / "m.json"), "--id", "acme/Fees-v0", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, *(["--trust"] if trusted else [])])
    assert (done.exit_code == 0) == trusted == (tmp_path / "out").exists()
    if not trusted:
        assert isinstance(done.exception, DataError)
        assert "no sandbox can run it" in str(done.exception)
        assert "--trust" in str(done.exception)


def test_what_a_script_says_is_json() -> None:
    source = "export const handler = async (i) => ({nan: NaN, big: 1e400, text: '\\ud800', ok: 1})"
    found = DecisionModel(graph(script(source)), "m", sandboxed)
    with suppress(CaseError):
        json.dumps(found.evaluate({"amount": 1}).output, allow_nan=False)
