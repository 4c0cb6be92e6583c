"""Rows that come and go: the same bits whatever the company, and nothing is read twice."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vertigym.core.errors import EngineError
from vertigym.core.types import Completion, Decoding, Prompt, Sampling, StopReason
from vertigym.policies import row_memory, tiny
from vertigym.policies.decoder import Decoder
from vertigym.policies.row_memory import RowMemory, rows_are_alike
from vertigym.policies.running_batch import RunningBatch
from vertigym.policies.transformers_engine import TransformersEngine

from .programs import engine_of_few_words

GREEDY = Sampling(temperature=0, max_tokens=12)
FREE = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(
        tmp_path_factory.mktemp("m"), "say that was long", hidden=32, layers=2, heads=4, ffn=48
    )


def opened(engine: TransformersEngine, sampling: Sampling = FREE, rows: int = 8) -> RunningBatch:
    batch = engine.running_batch(sampling, rows)
    assert batch, "rows of this model are not alike on this machine"
    return batch


def collected(batch: RunningBatch) -> dict[int, Completion]:
    found: dict[int, Completion] = {}
    while batch.busy:
        found |= batch.collect()
    batch.close()
    return found


def prompt(number: int, length: int = 20, seed: int | None = None) -> Prompt:
    ids = [5 + (number * 37 + i * i) % 250 for i in range(length)]
    return Prompt((), token_ids=ids, seed=number if seed is None else seed)


def bits(one: Completion) -> tuple[Sequence[int], Sequence[float]]:
    return one.token_ids, one.logprobs


def test_a_completion_is_the_same_to_the_bit_whatever_it_is_asked_for_together_with(
    engine: TransformersEngine,
) -> None:
    prompts = [prompt(n, length) for n, length in enumerate([3, 20, 64, 65, 130, 257, 300, 420])]
    alone = dict[int, Completion]()
    for n, one in enumerate(prompts):
        batch = opened(engine, rows=1)
        batch.add(n, one)
        alone |= collected(batch)
    batch, late = opened(engine, rows=30), dict[int, Completion]()
    for n in (7, 2, 4):
        batch.add(n, prompts[n])
    for n in (0, 1, 3, 5, 6):  # each joins some tokens later
        late |= batch.collect()
        batch.add(n, prompts[n])
        batch.add(100 + n, prompt(50 + n, 90))
    late |= collected(batch)
    assert {n: bits(late[n]) for n in alone} == {n: bits(one) for n, one in alone.items()}


def test_it_writes_what_whole_batches_write(engine: TransformersEngine) -> None:
    prompts = [prompt(n, 5 + 9 * n) for n in range(12)]
    batch = opened(engine, rows=3)  # fewer rows than prompts
    for n, one in enumerate(prompts):
        batch.add(n, one)
    found = collected(batch)
    for n, whole in enumerate(engine.generate(prompts, FREE)):
        assert list(found[n].token_ids) == list(whole.token_ids)
        assert list(found[n].logprobs) == pytest.approx(list(whole.logprobs), abs=1e-4)
        assert (found[n].text, found[n].stop_reason) == (whole.text, whole.stop_reason)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of `read` is given."""
    counts: list[int] = []
    original = RowMemory.read

    def counting(self: RowMemory, rows: Sequence[int], ids: Sequence[Sequence[int]]) -> torch.Tensor:
        counts.append(sum(map(len, ids)))
        return original(self, rows, ids)

    monkeypatch.setattr(RowMemory, "read", counting)
    return counts


def test_a_later_turn_reads_what_is_new_and_writes_what_it_would_have_written_anew(
    engine: TransformersEngine, read: list[int]
) -> None:
    batch = opened(engine)
    batch.add(0, prompt(0))
    found = dict[int, Completion]()
    while not found:
        found |= batch.collect()
    longer = [*prompt(0).token_ids, *found[0].token_ids, 9, 10, 11]  # type: ignore[misc]
    read.clear()
    batch.add(0, Prompt((), token_ids=longer, seed=5))
    again = collected(batch)[0]
    assert read == [4], "the last sampled token was never fed, and three are new"
    anew = opened(engine)
    anew.add(0, Prompt((), token_ids=longer, seed=5))
    assert bits(collected(anew)[0]) == bits(again)


def test_the_prompt_of_a_group_is_read_once(engine: TransformersEngine, read: list[int]) -> None:
    batch = opened(engine)
    for n in range(6):
        batch.add(n, prompt(1, seed=n))
    found = collected(batch)
    assert read == [20]
    for n in range(6):
        alone = opened(engine)
        alone.add(n, prompt(1, seed=n))
        assert bits(collected(alone)[n]) == bits(found[n])


def test_a_chat_that_has_left_makes_room_before_one_that_waits_for_its_tool(
    engine: TransformersEngine, read: list[int]
) -> None:
    batch = opened(engine, rows=1)  # rounded up to 8
    for n in range(8):
        batch.add(n, prompt(n))
    found = dict[int, Completion]()
    while batch.busy:
        found |= batch.collect()
    batch.leave(5)
    batch.add(8, prompt(8))
    while batch.busy:
        batch.collect()
    read.clear()
    for n in (0, 1, 7):
        batch.add(n, Prompt((), token_ids=[*found[n].prompt_ids, *found[n].token_ids, 9]))
        while batch.busy:
            batch.collect()
    batch.close()
    assert read == [2, 2, 2]


def test_stops_limits_and_grammars_are_those_of_whole_batches(engine: TransformersEngine) -> None:
    pytest.importorskip("llguidance")
    plain = engine.generate([prompt(3)], GREEDY)[0]
    middle = plain.text[len(plain.text) // 2]
    asked = [
        Decoding(stop=(middle,)),
        Decoding(max_tokens=3),
        Decoding(alternatives=2),
        Decoding(grammar='start: "yes" | "no"'),
        Decoding(ends=(middle,)),
    ]
    prompts = [Prompt((), token_ids=prompt(3).token_ids, decoding=one) for one in asked]
    batch = opened(engine, GREEDY)
    for n, one in enumerate(prompts):
        batch.add(n, one)
    found = collected(batch)
    for n, whole in enumerate(engine.generate(prompts, GREEDY)):
        assert (found[n].text, found[n].stop_text) == (whole.text, whole.stop_text)
        assert [t.text for t in found[n].tokens] == [t.text for t in whole.tokens]
    assert found[3].text in ("yes", "no")


def test_a_prompt_without_room_comes_back_empty(engine: TransformersEngine) -> None:
    batch = opened(engine)
    batch.add(4, prompt(0, 512))
    assert collected(batch)[4].stop_reason is StopReason.LENGTH


def test_new_weights_wait_for_open_rows_and_what_was_read_before_is_forgotten(tmp_path: Path) -> None:
    size = tiny.TinySize(hidden=32, layers=1, heads=2, key_heads=2, ffn=32, init_std=0.5, context=256)
    tiny.build(["say that"] * 2, tmp_path / "m", size=size)
    engine = TransformersEngine.load(tmp_path / "m")
    batch = opened(engine)
    batch.add(0, prompt(0))
    assert batch.collect() == []
    with torch.no_grad():
        engine.model.model.embed_tokens.weight.mul_(1.5)
    changing = threading.Thread(target=engine.refresh, args=(7,))
    changing.start()
    while not engine.wanted:
        pass
    batch.add(1, prompt(0, seed=1))  # is not begun before the weights have changed
    found = dict[int, Completion]()
    while batch.busy:
        found |= batch.collect()
    changing.join()
    batch.close()
    assert (found[0].policy_version, found[1].policy_version) == (0, 7)
    fresh = opened(engine)
    fresh.add(1, prompt(0, seed=1))
    assert bits(collected(fresh)[1]) == bits(found[1])


def test_out_of_memory_says_what_to_lower(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no more")

    batch = opened(engine)
    monkeypatch.setattr(RowMemory, "read", full)
    batch.add(0, prompt(0))
    with pytest.raises(EngineError, match=r"lower rollout\.batch"):
        batch.collect()
    batch.close()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(engine.generate, [prompt(0)], FREE).result(60)


def test_memory_agrees_with_the_forward_pass_over_several_parts(engine: TransformersEngine) -> None:
    ids = [5 + i * i % 250 for i in range(500)]
    with torch.inference_mode():
        memory = RowMemory(Decoder(engine.model, torch.float32), 3)
        memory.read([1], [ids[:300]])
        memory.copy(1, 2, 290)
        memory.swap(2, 0)
        logits = memory.read([0], [ids[290:]])
        own = engine.model(torch.tensor([ids])).logits[0, -1:]
    assert torch.allclose(logits.log_softmax(-1), own.log_softmax(-1), atol=1e-4)
    assert memory.known(np.array(ids[:400])).tolist()[:3] == [400, 300, 0]


def test_rows_that_are_not_alike_are_found(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(engine.model, torch.float32)
    with torch.inference_mode():
        assert rows_are_alike(decoder)
        attend = row_memory._attend  # here what is read in one pass weighs a little more than what is stepped
        monkeypatch.setattr(
            row_memory, "_attend", lambda q, *kv: attend(q, *kv) * (1 + 1e-5 * (q.shape[2] > 1))
        )
        assert not rows_are_alike(decoder)
    monkeypatch.setattr(engine, "_alike", False)
    assert engine.running_batch(FREE, 4) is None
