"""What programs ask side by side, again, and in other dialects, and the reward that they post."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.types import Sampling, Trajectory
from vertigym.policies.transformers_engine import TransformersEngine

from .faulty_program import ENDING, SCRIPT, KeptCalls, faults_of, task
from .foreign_programs import AGENTS
from .programs import BY_HAND, CALL, Recording, engine_of_few_words, play, program

# A main agent, and two that go on from its first answer side by side, each in two calls.
SIDE_BY_SIDE = (
    BY_HAND
    + """
from concurrent.futures import ThreadPoolExecutor
root = said([question])

def agent(n):
    time.sleep(float(os.environ["DELAYS"].split()[n]))
    chat = [question, root, {"role": "user", "content": f"agent {n}"}]
    return said([*chat, said(chat), {"role": "user", "content": "again"}])["content"]

with ThreadPoolExecutor(2) as pool:
    print(json.dumps(list(pool.map(agent, range(2)))))
"""
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(tmp_path_factory.mktemp("m"))


def side_by_side(folder: Path, delays: str, policy: Any) -> tuple[Trajectory, Trajectory]:
    one, other = play(program(folder, SIDE_BY_SIDE, environment={"DELAYS": delays}), policy, 2)
    assert one.score.value is not None, one.score
    return one, other


def test_calls_side_by_side_are_branches_whatever_their_order(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    (one, beside), (other, also) = (
        side_by_side(tmp_path / "e", delays, engine) for delays in ("0 0.4", "0.4 0")
    )
    assert beside.segments == also.segments
    assert one.segments == other.segments
    assert one.score.evidence["output"] == other.score.evidence["output"]
    assert (one.turns, len(one.segments)) == (5, 2)
    first, second = one.segments
    shared = next(
        i for i, pair in enumerate(zip(first.token_ids, second.token_ids, strict=False)) if len({*pair}) > 1
    )
    assert any(first.loss_mask[:shared])
    assert not any(second.loss_mask[:shared]), "what both continue is trained once"
    assert sum(sum(segment.loss_mask) for segment in one.segments) == one.completion_tokens


def test_the_same_question_side_by_side_has_two_answers(engine: TransformersEngine, tmp_path: Path) -> None:
    script = BY_HAND + "print(sorted(said([question])['content'] for _ in range(2)))"
    (played,) = play(program(tmp_path / "e", script), engine)
    assert len(set(played.segments)) == 2


KEYED = (
    BY_HAND
    + """
def keyed(key, **more):
    return post("/chat/completions", json.dumps({"model": "m", "messages": [question], **more}).encode(), key)

once, twice = (keyed({"Idempotency-Key": "a"}) for _ in range(2))
assert once == twice != keyed({"Idempotency-Key": "b"}) != keyed({})
print(json.loads(once)["choices"][0]["message"]["content"])
"""
)


def test_one_idempotency_key_is_one_call(tmp_path: Path) -> None:
    (played,) = play(program(tmp_path / "e", KEYED), Recording("0", "1", "2"))
    assert (played.score.value, played.turns) == (1.0, 3), played.score
    other = KEYED + "keyed({'Idempotency-Key': 'a'}, max_tokens=3)"
    (played,) = play(program(tmp_path / "f", other), Recording("0", "1", "2"))
    assert "idempotency key 'a' is another request's" in played.score.evidence["reason"]


def test_no_call_is_lost_and_none_is_made_or_trained_twice(engine: TransformersEngine, tmp_path: Path) -> None:
    tasks = [task("t0", 40), *(task(f"t{n}", 16, doom) for n, doom in enumerate(ENDING, 1))]
    env = program(tmp_path / "e", SCRIPT, tasks=tasks, max_turns=64, timeout_s=60.0, parallel=4)
    kept = KeptCalls(engine)
    played = play(env, kept, 4)
    assert [faults_of(row, one, kept) for row, one in zip(tasks, played, strict=True)] == [[]] * 4
    assert [one.score.value is None for one in played] == [False, True, True, True]


def post_reward(what: str) -> str:
    return (
        BY_HAND
        + f"""
said([question])
body = {what!r}.encode()
try: urllib.request.urlopen(urllib.request.Request(os.environ["VERTIGYM_REWARD_URL"], body))
except OSError: pass
"""
    )


@pytest.mark.parametrize(
    ("script", "value", "says"),
    [
        (post_reward('{"reward": 0.25}'), 0.25, ""),
        (post_reward('{"reward": -1}'), -1.0, ""),
        (post_reward('{"reward": "1"}'), None, "reward: Input should be a valid number"),
        (post_reward('{"reward": NaN}'), None, "Invalid JSON"),
        (post_reward('{"rewards": 1}'), None, "Field required"),
        (post_reward('{"reward": 1}') + "sys.exit(3)", None, "exit code 3"),
        (BY_HAND + "said([question])", None, "posted no reward"),
    ],
    ids=range(7),
)
def test_a_program_may_post_its_reward(script: str, value: float | None, says: str, tmp_path: Path) -> None:
    (played,) = play(program(tmp_path / "e", script, output="posted"), Recording())
    assert played.score.value == value, played.score
    assert says in str(played.score.evidence)


BY_ANTHROPIC = """
import json, sys, anthropic
task, client = json.load(sys.stdin), anthropic.Anthropic(max_retries=0)
tools = [{"name": "find", "input_schema": {"type": "object"}}]
chat = [{"role": "user", "content": task["prompt"]}]
said = client.messages.create(model="m", max_tokens=8, messages=chat, tools=tools, system="s")
chat.append({"role": "assistant", "content": said.content})
calls = [block for block in said.content if block.type == "tool_use"]
results = [{"type": "tool_result", "tool_use_id": block.id, "content": "ok"} for block in calls]
chat.append({"role": "user", "content": results or "again"})
with client.messages.stream(model="m", max_tokens=8, messages=chat, tools=tools, system="s") as stream:
    print("".join(stream.text_stream))
"""
BY_RESPONSES = """
import json, sys, openai
task, client = json.load(sys.stdin), openai.OpenAI(max_retries=0)
tools = [{"type": "function", "name": "find", "parameters": {"type": "object"}}]
items = [{"role": "user", "content": task["prompt"]}]
said = client.responses.create(model="m", input=items, tools=tools, instructions="s")
items += [one.to_dict() for one in said.output]
calls = [one for one in said.output if one.type == "function_call"]
items += [{"type": "function_call_output", "call_id": one.call_id, "output": "ok"} for one in calls]
items += [] if calls else [{"role": "user", "content": "again"}]
print(client.responses.create(model="m", input=items, tools=tools, instructions="s").output_text)
"""


@pytest.mark.parametrize("script", [BY_ANTHROPIC, BY_RESPONSES])
def test_other_dialects_are_recorded_alike(script: str, tmp_path: Path) -> None:
    policy = Recording(CALL, "0")
    (played,) = play(program(tmp_path / "e", script, timeout_s=120.0), policy)
    assert played.score.value == 1.0, played.score
    assert [m["role"] for m in policy.prompts[1].messages] == ["system", "user", "assistant", "tool"]
    assert policy.prompts[1].messages[2] == {"role": "assistant", "content": CALL}, "as it was written"


def test_a_stop_string_of_a_program_is_honoured(engine: TransformersEngine, tmp_path: Path) -> None:
    script = BY_HAND + "print(said([question], stop=' END')['content'])"
    (played,) = play(program(tmp_path / "e", script), Recording("0 END and more"))
    assert played.score.value == 1.0, played.score
    letters = [chr(n) for n in range(33, 127)]
    script = BY_HAND + f"said([question, said([question], stop={letters}), question])"
    (played,) = play(program(tmp_path / "f", script), engine, sampling=Sampling(max_tokens=64))
    assert len(played.segments) == 2, "the cut text is not what was sampled: another segment"


def test_openais_agents_with_a_tool_and_an_agent_below(tmp_path: Path) -> None:
    pytest.importorskip("agents")
    policy = Recording(CALL, CALL.replace("find", "ask").replace('{"a": 1}', '{"input": "who"}'), "me", "0")
    (played,) = play(program(tmp_path / "e", AGENTS, ignored=["strict"], timeout_s=120.0), policy)
    assert played.score.value == 1.0, played.score
    assert [prompt.messages[-1]["content"] for prompt in policy.prompts] == ["say 0", "found 1", "who", "me"]
