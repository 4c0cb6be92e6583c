"""Task folders in Harbor's form: played in a sandbox, judged by their own verifier, left out where they need
more."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from vertigym import envs
from vertigym.core.errors import ConfigError, DataError, SandboxError
from vertigym.core.types import Trajectory
from vertigym.envs.tool_calls import write_call
from vertigym.sandboxes.levels import best_level

from .programs import Recording, play

DOCKERFILE = """FROM ubuntu:24.04
# What is there.
WORKDIR /app
ENV MOOD=good KIND='so so'
COPY data ./data
COPY run.sh /app/
"""
TEST = """#!/bin/bash
mkdir -p /logs/verifier
if [ "$(cat /app/hello.txt)" = "Hello, $NAME!" ]; then echo 1 > /logs/verifier/reward.txt
else echo 0 > /logs/verifier/reward.txt; fi
"""
SOLVE = 'printf "$GREETING, %s!" "$(cat /app/data/name)" > hello.txt\n'
TOML = {
    "schema_version": "1.4",
    "task": {"name": "acme/hello"},
    "metadata": {"difficulty": "easy"},
    "verifier": {"timeout_sec": 20.0, "env": {"NAME": "world"}},
    "agent": {"timeout_sec": 20.0},
    "solution": {"env": {"GREETING": "Hello"}},
    "environment": {"cpus": 1, "memory_mb": 512, "gpus": 0, "network_mode": "no-network"},
}


def namespaced() -> bool:
    try:
        return best_level() == "namespaced"
    except SandboxError:
        return False


needs_sandbox = pytest.mark.skipif(not namespaced(), reason="no namespaces here")


def task(
    folder: Path,
    name: str = "hello",
    *,
    toml: Any = TOML,
    dockerfile: str = DOCKERFILE,
    test: str = TEST,
    solve: str = SOLVE,
) -> Path:
    path = folder / "tasks" / name
    for file, text in {
        "instruction.md": f"Greet {name}.", "task.toml": tomli_w.dumps(toml),
        "environment/Dockerfile": dockerfile,
        "environment/data/name": "world", "environment/run.sh": "#!/bin/sh\necho $MOOD $KIND\n",
        "tests/test.sh": test, "solution/solve.sh": solve,
    }.items():  # fmt: skip
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(text)
    (path / "environment/run.sh").chmod(0o755)
    return path


def env(folder: Path, **keys: Any) -> str:
    table = {"id": "acme/Terminal-v0", "kind": "harbor", "files": {"train": "tasks"}, **keys}
    (folder / "env.toml").write_text(tomli_w.dumps(table))
    return str(folder)


def bash(command: str) -> str:
    return write_call("bash", command=command)


def reason(played: Trajectory) -> str:
    assert played.score.value is None, played.score
    return str(played.score.evidence["reason"])


@needs_sandbox
def test_a_task_is_played_and_its_verifier_judges(tmp_path: Path) -> None:
    task(tmp_path)
    look = bash("pwd; ls; ./run.sh; ls /tests/ 2>&1")
    write = write_call("edit", path="hello.txt", old="", new="Hello, world!")
    made = envs.make(env(tmp_path))
    (played,) = play(
        made, Recording(look, write, write_call("read", path="/app/hello.txt"), write_call("submit"))
    )
    assert (played.score.value, played.score.parts) == (1.0, {"reward": 1.0})
    _, asked, _, seen, _, _, _, read = (str(message["content"]) for message in played.messages[:8])
    assert asked == "Greet hello."
    assert seen.startswith("/app\ndata\nrun.sh\ngood so so\n")
    assert "cannot access '/tests/'" in seen
    assert read == "Hello, world!"
    (wrong,) = play(made, Recording(bash("echo hi > hello.txt"), write_call("submit")))
    assert wrong.score.value == 0.0


@needs_sandbox
def test_the_tasks_own_solution_is_its_reference(tmp_path: Path) -> None:
    task(tmp_path)
    made = envs.make(env(tmp_path))
    (played,) = play(made, Recording(*(made.reference(made.tasks.get("hello")) or ())))
    assert played.score.value == 1.0, played


@needs_sandbox
@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("true", "wrote no reward"),
        ("nowhere --all", "nowhere: command not found"),
        ("echo nan > /logs/verifier/reward.txt", "no number: b'nan"),
        ("touch /logs/verifier/reward.txt", "no number"),
        ('echo \'{"a": "high"}\' > /logs/verifier/reward.json', "no number"),
        ('echo \'{"a": 1, "b": 0}\' > /logs/verifier/reward.json', "no reward 'reward' among a, b"),
        ("sleep 60", "ended with wall"),
        (
            "if pytest /tests; then echo 1; else echo 0; fi > /logs/verifier/reward.txt",
            "own solution earns nothing",
        ),
    ],
)
def test_what_is_the_verifiers_fault_is_not_scored(test: str, says: str, tmp_path: Path) -> None:
    task(tmp_path, test=test, toml=TOML | {"verifier": {"timeout_sec": 1.0}})
    assert says in reason(play(env(tmp_path), Recording(write_call("submit")))[0])


@needs_sandbox
def test_one_of_several_rewards_is_the_score_and_json_counts_before_text(tmp_path: Path) -> None:
    test = 'echo \'{"a": 0.5, "b": 2}\' > /logs/verifier/reward.json; echo 9 > /logs/verifier/reward.txt'
    task(tmp_path, test=test)
    (played,) = play(env(tmp_path, reward="a"), Recording(write_call("submit")))
    assert (played.score.value, played.score.parts) == (0.5, {"a": 0.5, "b": 2.0})


@needs_sandbox
@pytest.mark.parametrize(
    "trick",
    [
        "mkdir -p /tmp/work/logs/verifier; echo 1 > /logs/verifier/reward.json",
        "mkdir -p /tmp/work/tests; echo 'echo 1 > /logs/verifier/reward.json' > /tests/test.sh",
        "mkdir -p /tmp/work/logs; (while :; do echo 1 > /logs/verifier/reward.json; done) &",
    ],
)
def test_what_the_policy_left_there_is_no_reward(trick: str, tmp_path: Path) -> None:
    task(tmp_path)
    assert play(env(tmp_path), Recording(bash(trick), write_call("submit")))[0].score.value == 0.0


def without(key: str, **values: Any) -> Any:
    return TOML | {key: {**TOML[key], **values}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"toml": without("environment", network_mode="public")}, "may use the network"),
        ({"toml": without("environment", docker_image="acme/image")}, "environment.docker_image"),
        ({"toml": without("environment", gpus=1)}, "environment.gpus"),
        ({"toml": without("environment", os="windows")}, "not for Linux"),
        ({"toml": without("agent", user="bob")}, "agent.user"),
        ({"toml": without("verifier", env={"KEY": "${KEY}"})}, "variable KEY"),
        ({"toml": TOML | {"steps": [{"name": "one"}]}}, "has steps"),
        ({"dockerfile": "FROM a\nRUN make"}, "has to be built: RUN make"),
        ({"dockerfile": "FROM a\nWORKDIR /app\nCOPY --from=b /x /y"}, "has to be built: COPY"),
        ({"dockerfile": "FROM a AS b\nFROM b\nWORKDIR /app"}, "several stages"),
        ({"dockerfile": "FROM a\nWORKDIR $HOME"}, "a variable"),
        ({"dockerfile": "FROM a\nWORKDIR /app\nCOPY data /etc"}, "outside of /app"),
        ({"dockerfile": "FROM a\nWORKDIR /app\nCOPY nothing ."}, "copies nothing"),
        ({"dockerfile": "FROM a"}, "works in /"),
    ],
)
def test_a_task_that_needs_more_is_left_out_with_the_reason(keys: Any, says: str, tmp_path: Path) -> None:
    task(tmp_path, **keys)
    with pytest.raises(DataError, match="hello is left out") as alone:
        envs.make(env(tmp_path))
    assert says in str(alone.value)
    task(tmp_path, "other")
    made = envs.make(env(tmp_path))
    assert made.tasks.ids("train") == ["other"]
    assert says in made.notes[0]


def test_a_user_may_say_that_no_network_is_needed(tmp_path: Path) -> None:
    task(tmp_path, toml=without("environment", network_mode="public"))
    assert envs.make(env(tmp_path, offline=True)).tasks.ids("train") == ["hello"]


@pytest.mark.parametrize("toml", [{"environment": 3}, TOML | {"verifier": {"timeout_sec": "soon"}}])
def test_a_malformed_task_is_one_line(toml: Any, tmp_path: Path) -> None:
    task(tmp_path, toml=toml)
    with pytest.raises(DataError, match="not a task in Harbor's form"):
        envs.make(env(tmp_path, offline=True))


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "e").mkdir()
    (task(tmp_path / "e") / "environment/data/link").symlink_to(tmp_path / "secret")
    with pytest.raises(ConfigError, match="leads out"):
        envs.make(env(tmp_path / "e"))
