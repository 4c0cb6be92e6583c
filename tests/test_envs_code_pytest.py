"""A project's own tests as code tasks: what becomes one, what is refused, and that no verdict can be forged."""

import re
from pathlib import Path

import pytest

from vertigym import envs
from vertigym.core.errors import DataError
from vertigym.core.types import SPLITS
from vertigym.envs.check import check
from vertigym.envs.code.env import CodeEnv
from vertigym.envs.code.pytest_files import find_tests, read_project
from vertigym.envs.code.pytest_import import (
    BROKEN,
    NO_BODY,
    NO_PYTHON,
    NO_TEST,
    NOT_DATA,
    TWICE,
    WITHOUT,
    PytestImport,
    import_lines,
    import_tests,
)
from vertigym.rewards.removed_body import answered, hollow, original, places

PACKAGE = {
    "shop/__init__.py": "from shop.prices import total\n",
    "shop/errors.py": "class EmptyBasketError(ValueError):\n    pass\n",
    "shop/prices.py": '''
import functools
from .errors import EmptyBasketError

_NOTHING = object()


def total(prices, discount=_NOTHING):
    """The sum, less a discount in percent."""
    if not prices:
        raise EmptyBasketError("nothing in it", 0)
    whole = sum(prices)
    return whole if discount is _NOTHING else whole - whole * discount / 100


@functools.lru_cache
def twice(number): return number * 2


def countdown(first):
    while first:
        yield first
        first -= 1


def apply(change, prices):
    return [change(price) for price in prices]


def cheapest(prices):
    return min(prices)


def unused(a):
    return a


def logged(text):
    print("log", text)


def opened():
    return object()


def later():
    """Not yet."""
    raise NotImplementedError


def online(url):
    import urllib.request

    return urllib.request.urlopen(url).read()
''',
    "shop/basket.py": '''
class Basket:
    """What a customer buys."""

    def __init__(self, limit=3):
        self.items = []
        self.limit = limit

    def add(self, item):
        """Add an item; False when it is full."""
        if len(self.items) >= self.limit:
            return False
        self.items.append(item)
        return True

    def __len__(self):
        return len(self.items)
''',
    "shop/old.py": "print 'of another time'\n",
    "shop/units.py": """
class Price:
    @property
    def cents(self):
        return self._cents

    @cents.setter
    def cents(self, cents):
        self._cents = cents
""",
}
TESTS = {
    "conftest.py": "import pytest\n\n\n@pytest.fixture\ndef prices():\n    return [3, 4, 5]\n",
    "helpers.py": "def near(a, b):\n    return abs(a - b) < 1e-9\n",
    "test_prices.py": """
import pytest
from helpers import near
from shop import total
from shop.errors import EmptyBasketError
from shop.prices import apply, cheapest, countdown, later, logged, online, opened, twice


def test_total(prices):
    assert near(total(prices), 12)


@pytest.mark.parametrize(("discount", "left"), [(50, 6.0), (0, 12.0)])
def test_discount(prices, discount, left):
    assert total(prices, discount) == left


class TestErrors:
    def test_empty(self):
        with pytest.raises(EmptyBasketError, match="nothing") as error:
            total([])
        assert error.value.args[1] == 0


def test_twice():
    assert [twice(2), twice(2)] == [4, 4]


def test_countdown():
    assert list(countdown(3)) == [3, 2, 1]


def test_apply():
    assert apply(lambda price: price + 1, [1, 2]) == [2, 3]


@pytest.mark.xfail
def test_cheapest_of_none():
    assert cheapest([]) is None


def test_logged():
    logged("a")


def test_opened():
    assert type(opened()) is object


def test_later():
    with pytest.raises(NotImplementedError):
        later()


def test_online():
    assert online("https://example.com")


def test_fixture_of_another_plugin(benchmark):
    assert twice(1) == 2
""",
    "test_basket.py": """
import unittest
from shop.basket import Basket


class BasketTest(unittest.TestCase):
    def test_add(self):
        basket = Basket(2)
        self.assertTrue(basket.add("a"))
        self.assertTrue(basket.add("b"))
        self.assertFalse(basket.add("c"))
        self.assertEqual(len(basket), 2)
""",
    "test_time.py": "import freezegun_that_nobody_has\n",
}


def write_project(folder: Path) -> Path:
    for place, files in (("src", PACKAGE), ("tests", TESTS)):
        for name, text in files.items():
            (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / place / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> PytestImport:
    project = write_project(tmp_path_factory.mktemp("project"))
    return import_tests(project / "tests", "acme/Shop-v0", project / "env", package=project / "src")


@pytest.fixture(scope="module")
def env(found: PytestImport) -> CodeEnv:
    made = envs.make(str(found.folder))
    assert isinstance(made, CodeEnv)
    return made


def ids(env: CodeEnv) -> list[str]:
    return sorted(i for split in SPLITS for i in env.tasks.ids(split))


def value(env: CodeEnv, task_id: str, answer: str) -> float | None:
    env.reset(options={"task": task_id})
    *_, info = env.step(answer)
    score: float | None = info["score"].value
    return score


def test_functions_and_methods_that_tests_judge_become_tasks(found: PytestImport, env: CodeEnv) -> None:
    assert ids(env) == [
        *("shop.basket.Basket.__init__", "shop.basket.Basket.__len__", "shop.basket.Basket.add"),
        *("shop.prices.apply", "shop.prices.countdown", "shop.prices.total", "shop.prices.twice"),
    ]
    tests = env.tasks.get("shop.prices.total").info["tests"]["tests"]
    assert sorted(tests) == [
        "test_prices.py::TestErrors::test_empty",
        "test_prices.py::test_discount",
        "test_prices.py::test_total",
    ]
    assert min(found.counts.values()) > 0


def test_what_gives_no_task_is_named_with_the_reason(found: PytestImport) -> None:
    assert {one.function.removeprefix("shop.prices."): one.reason for one in found.refused} == {
        "cheapest": BROKEN,  # its only test is expected to fail
        "unused": NO_TEST,
        "logged": WITHOUT,
        "opened": NOT_DATA,
        "later": NO_BODY,
        "online": BROKEN,
        "shop.old": NO_PYTHON,
        "shop.units.Price.cents": TWICE,
    }
    assert "URLError" in next(
        one.seen for one in found.refused if one.reason == BROKEN and "online" in one.function
    )
    assert found.unused["test_time.py"] == "ModuleNotFoundError: No module named 'freezegun_that_nobody_has'"
    assert "'benchmark' not found" in found.unused["test_prices.py::test_fixture_of_another_plugin"]
    text = "\n".join(import_lines(found))
    assert f"1  {NO_TEST}: shop.prices.unused" in text
    assert "8 functions" in text


def test_the_reference_scores_1_and_no_body_0(env: CodeEnv) -> None:
    for task_id in ids(env):
        task = env.tasks.get(task_id)
        assert value(env, task_id, str(task.answer)) == 1, task_id
        assert value(env, task_id, task.info["signature"] + "    pass") == 0, task_id


def test_the_prompt_has_signature_and_docstring_and_no_body(env: CodeEnv) -> None:
    total, add, twice = (
        env.tasks.get(f"shop.{one}") for one in ("prices.total", "basket.Basket.add", "prices.twice")
    )
    assert 'def total(prices, discount=_NOTHING):\n    """The sum, less' in str(total.prompt)
    assert "from .errors import EmptyBasketError" in str(total.prompt)
    assert "sum(prices)" not in str(total.prompt)
    assert "number * 2" not in str(twice.prompt)
    assert "The module also has: _NOTHING, twice, countdown" in str(total.prompt)
    assert "def __len__(self):\n        ..." in str(add.prompt)
    assert "append" not in str(add.prompt)


def test_a_better_and_a_bare_answer_are_right_and_a_wrong_one_is_not(env: CodeEnv) -> None:
    ok = "import math\n\ndef helper(x):\n    return math.fsum(x)\n\ndef total(prices, discount=0):\n"
    raises = "    if not prices: raise EmptyBasketError('nothing', 0)\n"
    assert (
        value(
            env,
            "shop.prices.total",
            f"```python\n{ok}{raises}    return helper(prices) * (100 - discount) / 100\n```",
        )
        == 1
    )
    assert value(env, "shop.prices.total", f"```python\n{ok}    return helper(prices)\n```") == 0
    assert value(env, "shop.prices.twice", "return 2 * number") == 1  # a body below the signature
    assert value(env, "shop.prices.twice", "def thrice(number): return 2 * number") == 0
    assert value(env, "shop.prices.twice", "def twice(number") == 0


FORGERIES = (
    "import sys, os\ndef twice(number): os._exit(0)",
    "import sys\nclass Any:\n    def __eq__(self, other): return True\ndef twice(number): return Any()",
    "import pytest\ndef twice(number): pytest.skip('x')",
    "import unittest\ndef twice(number): raise unittest.SkipTest('x')",
    "import pytest\npytest.main = lambda *a, **k: 0\ndef twice(number): raise SystemExit(0)",
    "import sys\nfor m in [*sys.modules.values()]: m.assert_passed = print\ndef twice(number): return None",
    "def twice(number):\n    raise StopIteration",
    "import os\nos.write(4, b'[\"value\", \"true\"]\\n' * 9)\ndef twice(number): return 0",
    "import builtins\nbuiltins.__under_test__ = lambda f: print\ndef twice(number): return 0",
)  # fmt: skip


@pytest.mark.parametrize("program", FORGERIES)
def test_no_program_passes_without_the_right_values(env: CodeEnv, program: str) -> None:
    assert value(env, "shop.prices.twice", f"```python\n{program}\n```") == 0


def test_a_program_never_sees_the_tests(env: CodeEnv) -> None:
    search = "any('_'.join(['test', 'twice']) in str(one) for one in gc.get_objects())"
    look = f"import gc\ndef twice(number):\n    return 4 if {search} else 0"
    assert value(env, "shop.prices.twice", look) == 0


@pytest.mark.slow
def test_env_check_passes(found: PytestImport) -> None:
    assert [one for one in check(str(found.folder), tasks=2).findings if one.level == "failure"] == []


@pytest.mark.parametrize(
    ("tests", "package", "said"),
    [
        ("nowhere", "src", "nowhere: no such file or folder"),
        ("src", "src", "src: no tests; pytest's are functions test_… in files test_*.py or *_test.py"),
        ("tests", "tests", "holds nothing but tests: --package is what they test"),
        ("tests", "empty", "holds no package (a folder with __init__.py) and no module"),
        ("tests", ".", "src does"),
        ("tests", "other", "is {}/other what they test?)"),
        ("tests", "readme.txt", "no Python"),
    ],
)
def test_wrong_folders_are_refused_in_one_line(tmp_path: Path, tests: str, package: str, said: str) -> None:
    project = write_project(tmp_path)
    (project / "empty").mkdir()
    (project / "other" / "bakery").mkdir(parents=True)
    (project / "other" / "bakery" / "__init__.py").write_text("def bake(): return 1\n")
    (project / "readme.txt").write_text("")
    with pytest.raises(DataError, match=re.escape(said.format(tmp_path))) as error:
        import_tests(project / tests, "acme/Shop-v0", tmp_path / "env", package=project / package)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "env").exists()


def test_tests_inside_of_their_package_keep_their_names(tmp_path: Path) -> None:
    for name in ("__init__.py", "a.py", "tests/__init__.py", "tests/test_a.py"):
        (tmp_path / "pack" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pack" / name).write_text("")
    project = read_project(tmp_path / "pack" / "tests", tmp_path / "pack")
    assert (set(project.package), set(project.hidden)) == (
        {"pack/__init__.py", "pack/a.py"},
        {"pack/tests/__init__.py", "pack/tests/test_a.py"},
    )
    assert project.paths == ("pack/tests/test_a.py",)
    assert find_tests(tmp_path / "pack" / "tests") == (tmp_path / "pack" / "tests", tmp_path / "pack")


def test_a_project_s_folders_are_found(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    assert find_tests(project) == (project / "tests", project / "src")
    assert find_tests(project / "tests") == (project / "tests", project / "src")
    assert find_tests(project / "src") is None


SOURCE = '''class A:
    @property
    def m(self): return 1
    def n(
        self,
    ):
        """D."""
        # why
        return 2
'''


def test_a_function_is_taken_out_whole_and_put_back() -> None:
    assert set(places(SOURCE)) == {"A.m", "A.n"}
    assert hollow(SOURCE, "A.m") == "@property\ndef m(self):\n"
    assert hollow(SOURCE, "A.n") == 'def n(\n    self,\n):\n    """D."""\n'
    assert original(SOURCE, "A.n") == "def n(\n    self,\n):\n    # why\n    return 2\n"
    made = answered(SOURCE, "A.n", "X = 3\ndef n(self):\n    return X")
    space: dict[str, object] = {"__under_test__": lambda marked: marked}
    exec(compile(made, "made", "exec"), space)
    assert space["A"]().n() == 3  # type: ignore[operator]
    assert space["A"].n.__doc__ == "D."  # type: ignore[attr-defined]
