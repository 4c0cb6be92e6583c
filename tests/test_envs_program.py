"""Programs as policies: what a program asks is played and judged, what fails is not scored, what is sampled is
recorded token by token."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.errors import ConfigError
from vertigym.core.types import Sampling, Trajectory
from vertigym.envs.program import call_server
from vertigym.policies.transformers_engine import TransformersEngine

from .programs import BY_HAND, CALL, TWICE, Recording, engine_of_few_words, play, program

TOOL: Any = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(tmp_path_factory.mktemp("m"))


def reason(played: Trajectory) -> str:
    assert played.score.value is None, played.score
    return str(played.score.evidence["reason"])


def test_programs_that_start_at_once_share_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(call_server.ChatCallServer):
        def __init__(self) -> None:
            time.sleep(0.05)
            super().__init__()

    monkeypatch.setattr(call_server, "ChatCallServer", Slow)
    monkeypatch.setattr(call_server, "_servers", {})
    with ThreadPoolExecutor(8) as threads:
        servers = list(threads.map(lambda _: call_server.calls_server(), range(8)))
    assert len(set(map(id, servers))) == 1
    servers[0].shutdown()
    servers[0].server_close()


def test_a_program_is_played_and_its_output_is_judged(tmp_path: Path) -> None:
    policy = Recording()
    played = play(program(tmp_path / "e", TWICE), policy, 4)
    assert [t.score.value for t in played] == [1.0] * 4, [t.score for t in played]
    assert [t.turns for t in played] == [2] * 4
    assert played[0].score.parts["calls"] == 2.0
    assert [m["content"] for m in played[1].messages] == ["say 1", "1", "again", "1"]
    assert len({prompt.seed for prompt in policy.prompts}) == 8
    (wrong,) = play(program(tmp_path / "e", TWICE), Recording("0", "no"))
    assert (wrong.score.value, wrong.score.evidence["output"]) == (0.0, "no\n")


@pytest.mark.parametrize("text", ["", "a\ud800", "\x00\u2028 é", CALL, "<|im_end|>"], ids=ascii)
def test_any_reply_can_be_sent_back(text: str, tmp_path: Path) -> None:
    policy = Recording(text, "0")
    (played,) = play(program(tmp_path / "e", TWICE), policy)
    assert played.score.value == 1.0, played.score
    assert policy.prompts[1].messages[1]["content"] == text


def test_the_program_is_told_no_answer_and_only_what_is_shown(tmp_path: Path) -> None:
    script = BY_HAND + "said([question]); print(json.dumps(task))"
    for shown, keys in ((["note"], '"note": "n0"'), ([], "say 0")):
        (played,) = play(program(tmp_path / "e", script, shown=shown), Recording())
        told = played.score.evidence["output"]
        assert keys in told
        assert "answer" not in told
        assert ("note" in told) == bool(shown)


def test_a_file_of_a_fresh_workspace_is_judged(tmp_path: Path) -> None:
    script = (
        BY_HAND
        + """
assert sorted(os.listdir()) == ["given.txt"] and open("given.txt").read() == os.environ["GIVEN"] == "g"
open("answer.txt", "w").write(said([question])["content"])
open("given.txt", "w").write("changed")
"""
    )
    (tmp_path / "e" / "seed").mkdir(parents=True)
    (tmp_path / "e" / "seed" / "given.txt").write_text("g")
    keys: dict[str, Any] = {"workspace": "seed", "output": "answer.txt", "environment": {"GIVEN": "g"}}
    assert [t.score.value for t in play(program(tmp_path / "e", script, **keys), Recording(), 4)] == [1.0] * 4
    outside = {**keys, "output": "../task.json"}
    assert play(program(tmp_path / "e", script, **outside), Recording())[0].score.value == 0.0


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("print(1)", "exit code 0"),
        ("raise SystemExit('no key')", "exit code 1; no key"),
        ("import time; time.sleep(60)", "more than 1 s"),
        (BY_HAND + "said([question]); sys.exit(3)", "exit code 3"),
        (BY_HAND + "said([question]); os.kill(os.getpid(), 9)", "exit code -9"),
        (BY_HAND + "said([question]); time.sleep(60)", "more than 1 s"),
        (BY_HAND + "said([question], n=2)", "n is not supported"),
        (BY_HAND + "said([question], logprobs=True)", "logprobs is not supported"),
        (BY_HAND + "said([question], response_format={'type': 'json_object'})", "response_format is not"),
        (BY_HAND + "said([question], temperature=0)", "temperature is the run's to say"),
        (BY_HAND + "said([question])\ntry: post('/embeddings', b'{}')\nexcept OSError: pass", "/v1/embeddings"),
        (
            BY_HAND + "said([question])\ntry: post('/chat/completions', b'{')\nexcept OSError: pass",
            "Invalid JSON",
        ),
        (BY_HAND + "said([question])\ntry: said([])\nexcept OSError: pass", "messages: "),
    ],
    ids=range(13),
)
def test_what_fails_is_not_scored(script: str, says: str, tmp_path: Path) -> None:
    played = play(program(tmp_path / "e", script, timeout_s=1.0, output="none"), Recording("x"))
    assert says in reason(played[0])


def test_a_command_that_is_not_there_is_not_scored(tmp_path: Path) -> None:
    assert "cannot be started" in reason(play(program(tmp_path / "e", "", command=["nowhere"]), Recording())[0])


def test_exit_codes_that_are_the_policys_doing_are_judged(tmp_path: Path) -> None:
    script = BY_HAND + "print(said([question])['content']); sys.exit(3)"
    assert play(program(tmp_path / "e", script, judged_exits=[0, 3]), Recording())[0].score.value == 1.0


def test_a_retry_of_a_call_gets_its_answer_and_is_no_second_call(tmp_path: Path) -> None:
    script = (
        BY_HAND
        + """
body = json.dumps({"model": "m", "messages": [question]}).encode()
try:
    urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, {
        "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}), timeout=0.05)
except OSError:
    pass
answers = {post("/chat/completions", body, {"x-stainless-retry-count": n}) for n in "12"}
assert len(answers) == 1
print(json.loads(answers.pop())["choices"][0]["message"]["content"])
"""
    )
    (played,) = play(program(tmp_path / "e", script), Slow())
    assert (played.score.value, played.turns) == (1.0, 1)


def test_an_answer_that_nobody_waited_for_is_not_scored(tmp_path: Path) -> None:
    script = (
        BY_HAND
        + """
try:
    urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions",
        json.dumps({"model": "m", "messages": [question]}).encode(),
        {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}), timeout=0.05)
except OSError:
    print(task["prompt"][-1])
"""
    )
    assert "did not wait" in reason(play(program(tmp_path / "e", script), Slow())[0])


def test_a_call_that_was_sent_and_left_in_one_moment_is_not_scored_either(tmp_path: Path) -> None:
    script = (
        BY_HAND
        + """
import socket
from urllib.parse import urlsplit
print(said([question])["content"], flush=True)
url = urlsplit(os.environ["OPENAI_BASE_URL"])
body = json.dumps({"model": "m", "messages": [question, question]}).encode()
left = socket.create_connection((url.hostname, url.port))
head = f"POST {url.path}/chat/completions HTTP/1.1", f"Content-Length: {len(body)}", "", ""
left.sendall("\\r\\n".join(head).encode() + body)
os._exit(0)
"""
    )
    env = program(tmp_path / "e", script, parallel=4)
    for _ in range(4):
        played = play(env, Slow(), 4)
        assert [reason(one) for one in played] == ["the program did not wait for an answer"] * 4


class Slow(Recording):
    """Answers when a caller with little patience has gone."""

    def generate(self, prompts: Any, sampling: Sampling) -> Any:
        time.sleep(0.5)
        return super().generate(prompts, sampling)


def test_calls_past_the_limit_end_the_program_and_its_work_is_judged(tmp_path: Path) -> None:
    script = BY_HAND + "while True: print(said([question])['content'], end='', flush=True)"
    policy = Recording("0", "", "")
    (played,) = play(program(tmp_path / "e", script, max_turns=3), policy)
    assert (played.score.value, played.turns, played.stop_reason) == (1.0, 3, "turns")


def test_nothing_is_left_of_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    child = "import subprocess\nchild = subprocess.Popen(['sleep', '100'])\n"
    keep = f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{child.pid}} {{os.getpid()}} ')\n"
    for end in ("said([question])", "said([question]); time.sleep(9)", "said([question]); said([question])"):
        env = program(tmp_path / "e", BY_HAND + child + keep + end, timeout_s=1.5, max_turns=1)
        play(env, Recording("x"))
    made = envs.make(env)
    made.reset(seed=0, options={"task": "t0"})
    del made
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 8
    for _ in range(1000):  # a killed child is gone a moment later
        if not (left := [pid for pid in pids if _lives(int(pid))]):
            break
        time.sleep(0.01)
    assert not left
    assert list((tmp_path / "t").iterdir()) == []


def _lives(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.exists():
        return status.exists() and status.read_text().split()[2] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"command": []}, "command"),
        ({"reward": {"name": "no_such"}}, "no_such"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"comand": ["x"]}, "comand"),
    ],
)
def test_a_wrong_key_is_one_line(keys: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=says):
        envs.make(program(tmp_path / "e", "", **keys))


def test_a_folder_that_is_not_trusted_runs_nothing(tmp_path: Path) -> None:
    name = program(tmp_path / "e", TWICE).partition("?")[0]
    with pytest.raises(ConfigError, match="trust the folder"):
        envs.make(name)


# What is sampled, token by token.


def runs(played: Trajectory) -> list[list[int]]:
    """The runs of trained tokens, in the order of the segments."""
    found = []
    for segment in played.segments:
        pairs = zip(segment.token_ids, segment.loss_mask, strict=True)
        found += [[t for t, _ in run] for trained, run in groupby(pairs, key=lambda pair: pair[1]) if trained]
    return found


def logprobs(played: Trajectory) -> list[float]:
    pairs = [p for one in played.segments for p in zip(one.logprobs, one.loss_mask, strict=True)]
    return [logprob for logprob, trained in pairs if trained]


class Watched:
    """An engine, and the tokens and log-probs that it gave."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.engine, self.renderer = engine, engine.renderer
        self.wrote: list[list[int]] = []
        self.read: list[list[int]] = []
        self.gave: list[list[float]] = []

    def generate(self, prompts: Any, sampling: Sampling) -> Any:
        done = self.engine.generate(prompts, sampling)
        self.wrote += [list(one.token_ids) for one in done]
        self.read += [list(one.prompt_ids) for one in done]
        self.gave += [list(one.logprobs) for one in done]
        return done


MORE = (
    BY_HAND
    + """
chat = [question]
for n in range(3):
    chat += [said(chat), {"role": "user", "content": "again"}]
print(chat[-2]["content"])
"""
)
REWRITES = (
    BY_HAND
    + """
first = said([question])
second = said([question, first, {"role": "user", "content": "again"}])
third = said([{"role": "user", "content": "once more"}])
said([question, first, {"role": "user", "content": "again"}, second, {"role": "user", "content": "more"}])
"""
)
TOOLS = (
    BY_HAND
    + f"""
tool = {TOOL!r}
said([question, said([question]), question], tools=[tool])
"""
)


@pytest.mark.parametrize(("script", "segments"), [(MORE, 1), (REWRITES, 2), (TOOLS, 2)])
def test_trained_tokens_are_the_engines_own(
    script: str, segments: int, engine: TransformersEngine, tmp_path: Path
) -> None:
    watched = Watched(engine)
    for played in play(program(tmp_path / "e", script), watched, 2, batch=1):
        calls = played.turns
        wrote, read = watched.wrote[:calls], watched.read[:calls]
        given = [logprob for one in watched.gave[:calls] for logprob in one]
        del watched.wrote[:calls], watched.read[:calls], watched.gave[:calls]
        assert played.score.value is not None, played.score
        assert len(played.segments) == segments
        assert sorted(runs(played)) == sorted(wrote)
        assert sorted(logprobs(played)) == sorted(given)
        assert sum(map(len, wrote)) == played.completion_tokens
        whole = [list(segment.token_ids) for segment in played.segments]
        assert all(any(row[: len(ids)] == ids for row in whole) for ids in read)


def test_an_episode_depends_on_its_seed_alone(engine: TransformersEngine, tmp_path: Path) -> None:
    env = envs.make(program(tmp_path / "e", REWRITES))
    one, same, other = (tokens(play(env, engine, 4, batch=batch)) for batch in (1, 1, 4))
    assert one == same == other  # but for log-probs, which a batch rounds
    assert len({str(ids) for ids in one}) == 4
    first, second = (play(env, engine, 4, batch=4) for _ in range(2))
    assert [t.segments for t in first] == [t.segments for t in second]


def tokens(played: list[Trajectory]) -> list[list[Any]]:
    return [[(segment.token_ids, segment.loss_mask) for segment in one.segments] for one in played]


def test_a_program_may_ask_for_fewer_tokens_and_is_told_where_it_was_cut(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    script = BY_HAND + CUT
    for played in play(program(tmp_path / "e", script), engine, 4, sampling=Sampling(max_tokens=8)):
        (wrote,) = runs(played)
        why = "stop" if wrote[-1] in engine.renderer.stop else "length"
        assert len(wrote) <= 2
        assert played.score.evidence["output"] == f"{why} {len(wrote)}\n"


CUT = """
one = ask([question], max_tokens=2)
print(one["choices"][0]["finish_reason"], one["usage"]["completion_tokens"])
"""

# Through OpenAI's own client.

BY_CLIENT = """
import json, sys, openai
task, client = json.load(sys.stdin), openai.OpenAI(max_retries=0)
tools = [{"type": "function", "function": {"name": "find", "strict": True, "parameters": {"type": "object"}}}]
assert [model.id for model in client.models.list()] == ["policy"]
chat = [{"role": "user", "content": task["prompt"]}]
said = client.chat.completions.create(model="gpt-4o", messages=chat, tools=tools, temperature=0.2)
message = said.choices[0].message
chat.append(message)
for call in message.tool_calls or []:
    result = f"{call.function.name} {call.function.arguments}"
    chat.append({"role": "tool", "tool_call_id": call.id, "content": result})
stream = client.chat.completions.create(model="gpt-4o", messages=chat, tools=tools, stream=True)
print("".join(piece.choices[0].delta.content or "" for piece in stream))
"""


def test_openais_client_with_tools_and_a_stream(tmp_path: Path) -> None:
    policy = Recording(CALL, "0")
    (played,) = play(program(tmp_path / "e", BY_CLIENT, ignored=["temperature", "strict"]), policy)
    assert played.score.value == 1.0, played.score
    assert [m["role"] for m in policy.prompts[1].messages] == ["user", "assistant", "tool"]
    assert policy.prompts[1].messages[1] == {"role": "assistant", "content": CALL}
    assert policy.prompts[1].messages[2]["content"] == 'find {"a": 1}'
    assert policy.prompts[0].tools[0]["function"]["name"] == "find"
    assert "strict is not supported" in reason(play(program(tmp_path / "f", BY_CLIENT), Recording())[0])
