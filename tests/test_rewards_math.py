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

EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", "1/2"),
    (r"3\frac{1}{2}", "7/2"),
    (r"\{1,2,3\}", r"\{3, 2, 1\}"),
    ("[0,1)", r"\left[0, 1\right)"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"),
    (r"x \in [1, 2]", "[1,2]"),
    (r"10\text{ cm}", "10"),
    ("18", "18 dollars"),
    ("18", r"\$18"),
    ("50%", r"50\%"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    (r"\text{Tuesday}", "Tuesday"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("1,000", "1000"),
    ("1500", r"1.5 \times 10^{3}"),
    ("90", r"90^\circ"),
    ("5", "x = 5"),
    ("x=5", "5"),
    ("18", "12 + 6 = 18"),
    ("18", "The answer is 18."),
]
DIFFERENT = [
    ("2", "1, 2, 3"),
    ("2", "1 or 2 or 3"),
    ("2", r"\{1, 2\}"),
    ("(1,2)", "(2,1)"),
    ("[0,1)", "[0,1]"),
    (r"\frac{1}{3}", "0.33"),
    (r"\pi", "3.14"),
    ("-5", "5"),
    ("42", "12 + 30"),
    ("42", r"6 \cdot 7"),
    ("3", r"\sqrt{9}"),
    ("24", "4!"),
    ("8", "2^3"),
    ("42", "I don't know"),
    ("42", ""),
    ("x", "y"),
    (r"\text{Tuesday}", "Monday"),
]


@pytest.mark.parametrize(("reference", "reply"), EQUAL)
def test_equal(reference: str, reply: str) -> None:
    assert equivalent(reference, reply, 20.0, True) == (True, "")


@pytest.mark.parametrize(("reference", "reply"), DIFFERENT)
def test_different(reference: str, reply: str) -> None:
    assert equivalent(reference, reply, 20.0, True)[0] is False


def test_a_calculation_counts_only_when_allowed() -> None:
    assert equivalent("42", "12 + 30", 20.0, False) == (True, "")


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
