"""The math verifier: hard equivalences hold, traps do not pay, pathological text costs its limit only."""

import threading
import time
from pathlib import Path

import pytest

from vertigym.core.errors import InfrastructureError
from vertigym.core.types import Score, Task
from vertigym.rewards.math import equivalent, math_equal
from vertigym.rewards.process_pool import ProcessPool
from vertigym.rewards.rubric import Rubric


def table() -> list[tuple[str, str, str, str]]:
    """(kind, verdict, reference, reply) of `math_pairs.txt`."""
    found, kind = list[tuple[str, str, str, str]](), ""
    for line in (Path(__file__).parent / "math_pairs.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            kind = line.strip("[]")
        elif line and not line.startswith("#"):
            verdict, reference, reply = (f"{line} ".split(" | ", 2)) if line.count(" | ") else (line, "", "")
            found.append((kind, verdict, reference, reply.strip().replace("⏎", "\n")))
    return found


KINDS = sorted({kind for kind, *_ in table()})
VERDICTS = {"right": "right", "wrong": "wrong", "none": "no answer"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_of_the_table(kind: str) -> None:
    rows = [row for row in table() if row[0] == kind]
    assert rows
    off = {
        (reference, reply): (verdict, found)
        for _, verdict, reference, reply in rows
        if (found := judged(reply, reference)) != VERDICTS[verdict]
    }
    assert not off


def judged(reply: str, reference: str) -> str:
    verdict: str = score(reply, reference).evidence["verdict"]
    return verdict


def test_the_table_is_large_and_has_all_verdicts() -> None:
    assert len(table()) >= 300
    assert {verdict for _, verdict, *_ in table()} == set(VERDICTS)


def test_a_decimal_comma_is_read_where_the_data_write_one() -> None:
    assert equivalent("1,5", "1.500", 20.0, decimal_mark=",").verdict == "wrong"
    assert equivalent("1234,5", "1.234,50", 20.0, decimal_mark=",").verdict == "right"
    assert equivalent("1,5", "3/2", 20.0, decimal_mark=",").verdict == "right"
    with pytest.raises(ValueError, match="decimal_mark"):
        math_equal(decimal_mark=";")  # type: ignore[arg-type]


def test_no_answer_is_told_apart_from_a_wrong_one() -> None:
    wrong, silent = score("7", "42"), score("I don't know", "42")
    assert (wrong.value, wrong.parts["answered"]) == (0.0, 1.0)
    assert (silent.value, silent.parts["answered"]) == (0.0, 0.0)
    assert silent.evidence["why"] == "it says that there is no answer"


@pytest.mark.parametrize(
    "pieces", ["$", "\\{", "1,", "\\text{", "\\boxed{1},", "the answer ", "not ", "**", "\\[ \n", "1 h "]
)
def test_hostile_text_is_tidied_in_linear_time(pieces: str) -> None:
    assert score(pieces * (4000 // len(pieces)), "x+1", limit_s=0.5).value in (0.0, None)


def test_a_calculation_counts_only_when_allowed() -> None:
    assert equivalent("42", "12 + 30", 20.0, False).verdict == "right"


def score(reply: str, answer: str = "x+1", limit_s: float = 20.0) -> Score:
    task = Task(id="t", prompt="?", answer=answer)
    return Rubric(math_equal(limit_s=limit_s)).score(task=task, completion=reply)


def test_the_place_of_the_answer() -> None:
    assert score(r"first \boxed{x}, then \boxed{1+x}").value == 1.0
    assert score("so it is\n1 + x").value == 1.0
    assert score("").value == 0.0
    assert score(r"\boxed{}").value == 0.0


def test_a_reference_that_cannot_be_read_is_not_the_policys_fault() -> None:
    verdict = score("5", answer="")
    assert verdict.value is None
    assert "reference" in verdict.evidence["reason"]


def test_answers_of_absurd_length_score_0_at_once() -> None:
    assert score("{" * 10_000 + "}" * 10_000).value == 0.0
    assert score("\\boxed{" + "9" * 5000 + "}").value == 0.0


PATHOLOGICAL = ["{" * 400 + "}" * 400, r"\int_0^{10^{100}} e^{x^{x^x}} dx"]


@pytest.mark.parametrize("text", [*PATHOLOGICAL, "9^9^9^9", "10^10^10^10", "9" * 900 + "!" * 90])
def test_pathological_expressions_never_pay_and_never_raise(text: str) -> None:
    verdict = score(f"\\boxed{{{text}}}", limit_s=0.5)
    assert verdict.value in (0.0, None)
    assert score("1 + x").value == 1.0


def test_a_hanging_comparison_is_not_scored() -> None:
    verdict = score(f"\\boxed{{{PATHOLOGICAL[1]}}}", limit_s=0.3)
    assert verdict.value is None
    assert "0.3 s of processor time" in verdict.evidence["reason"]


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessPool:
    (tmp_path / "odd_worker.py").write_text(
        "import os, signal, time\n"
        "from vertigym.rewards.process_pool import serve\n"
        "def answer(request):\n"
        "    if request == 'spin':\n"
        "        while True: pass\n"
        "    if request == 'die': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    if request == 'leave': os._exit(3)\n"
        "    if request == 'eat': return len(bytearray(1 << 33))\n"
        "    return [request, os.getpid()]\n"
        "serve(answer)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ProcessPool("odd_worker", 2)


def test_a_worker_is_killed_at_its_limit_and_replaced(pool: ProcessPool) -> None:
    first = pool.ask(1, limit_s=5)
    with pytest.raises(TimeoutError, match="processor time"):
        pool.ask("spin", limit_s=0.05)
    second = pool.ask(2, limit_s=5)
    assert (first[0], second[0]) == (1, 2)
    assert first[1] != second[1]
    pool.close()


@pytest.mark.parametrize("fault", ["die", "leave", "eat"])
def test_a_worker_that_dies_is_the_machines_fault(pool: ProcessPool, fault: str) -> None:
    with pytest.raises(InfrastructureError):
        pool.ask(fault, limit_s=5)
    assert pool.ask("next", limit_s=5)[0] == "next"
    pool.close()
    assert pool.ask("again", limit_s=5)[0] == "again"
    pool.close()


def test_others_go_on_while_one_hangs(pool: ProcessPool) -> None:
    assert [pool.ask(i, limit_s=5)[0] for i in range(3)] == [0, 1, 2]
    hung: list[str] = []

    def hang() -> None:
        try:
            pool.ask("spin", limit_s=0.5)
        except TimeoutError:
            hung.append("killed")

    thread = threading.Thread(target=hang)
    thread.start()
    time.sleep(0.05)
    answered = [pool.ask(i, limit_s=5)[0] for i in range(20)]
    assert answered == list(range(20))
    thread.join()
    assert hung == ["killed"]
    pool.close()
