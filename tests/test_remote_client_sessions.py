"""Clients of `vertigym tinker` through its API: order, restarts, refusals, three at once. Messages are ours;
`test_remote_client.py` does the same with the real client."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft")
pytest.importorskip("google.protobuf")
pytest.importorskip("starlette")

from starlette.testclient import TestClient

from vertigym.core.types import Sampling
from vertigym.policies import tiny
from vertigym.remote import schema
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import SampleCall, checked
from vertigym.remote.client_sessions import ClientSessions
from vertigym.remote.endpoints import TinkerServer
from vertigym.remote.sample_queue import SampleQueue, WaitingCall
from vertigym.remote.samplers import SamplingEngines


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> AdaptedBase:
    folder = tmp_path_factory.mktemp("base")
    tiny.build(["the cat sat on the mat"] * 2, folder, size=tiny.TinySize(hidden=16, layers=1))
    return AdaptedBase("tiny", str(folder))


class Caller:
    """One client, over HTTP in this process."""

    def __init__(self, http: TestClient, rank: int = 4) -> None:
        self.http, self.rank, self.seq = http, rank, 0

    def post(self, endpoint: str, status: int = 200, /, **body: Any) -> Any:
        answer = self.http.post(f"/api/v1/{endpoint}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def begin(self, **model: Any) -> "Caller":
        self.session = self.post("create_session", tags=[], user_metadata=None, sdk_version="0.38.0")[
            "session_id"
        ]
        asked = {"session_id": self.session, "model_seq_id": 0, "base_model": "tiny"}
        lora = {"rank": self.rank, "seed": 3}
        self.model = self.done(self.post("create_model", **asked, lora_config=lora | model))["model_id"]
        return self

    def fetch(self, request_id: str) -> Any:
        return self.http.post("/api/v1/retrieve_future", json={"request_id": request_id})

    def done(self, accepted: Any) -> Any:
        return self.fetch(accepted["request_id"]).json()

    def submit(self, sign: float = 1.0, *, seq: int | None = None, **change: Any) -> str:
        seq = seq or self.next()
        message = schema.new("ForwardBackwardRequest", model_id=self.model, seq_id=seq, loss_fn="cross_entropy")
        for name, value in change.items():
            setattr(message, name, value)
        datum = message.data.add()
        datum.model_input.add().encoded_text.tokens = np.array([5, 6, 7], np.int32).tobytes()
        for name, values, kind in (("target_tokens", [6, 7, 8], np.int64), ("weights", [sign] * 3, np.float32)):
            tensor = datum.loss_fn_inputs[name]
            tensor.dense, tensor.dtype = np.array(values, kind).tobytes(), 1 if kind is np.float32 else 2
        answer = self.http.post("/api/v1/forward_backward", content=message.SerializeToString())
        assert answer.status_code == 200, answer.text
        request_id: str = answer.json()["request_id"]
        return request_id

    def next(self) -> int:
        self.seq += 1
        return self.seq

    def step(self, seq: int | None = None) -> Any:
        adam = {"learning_rate": 0.05}
        return self.post("optim_step", model_id=self.model, seq_id=seq or self.next(), adam_params=adam)

    def logps(self, request_id: str) -> list[float]:
        read = schema.parsed("ForwardBackwardOutput", self.fetch(request_id).content)
        found: list[float] = np.frombuffer(read.loss_fn_outputs[0].fields["logprobs"].data, np.float32).tolist()
        return found

    def train(self, steps: int, sign: float = 1.0) -> list[float]:
        for _ in range(steps):
            last = self.submit(sign)
            self.step()
        return self.logps(last)

    def sampler(self) -> str:
        number = self.next()
        asked = {"model_id": self.model, "seq_id": number, "sampling_session_seq_id": number}
        sampler: str = self.done(self.post("save_weights_for_sampler", **asked))["sampling_session_id"]
        return sampler

    def sample(self, status: int = 200, *, seq: int = 0, sampler: str = "", **asked: Any) -> Any:
        call = {
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5, 6, 7]}]},
            "sampling_params": {"max_tokens": 6, **asked.pop("sampling_params", {})},
            "sampling_session_id": sampler or self.sampler(),
            "seq_id": seq,
        }
        accepted = self.post("asample", status, **(call | asked))
        return (
            schema.parsed("SampleResponse", self.fetch(accepted["request_id"]).content)
            if status == 200
            else accepted
        )


@contextmanager
def server(base: AdaptedBase, store: Path, **limits: Any) -> Iterator[TestClient]:
    app = TinkerServer(ClientSessions({"tiny": base}, store, **limits)).app()
    with TestClient(app, base_url="http://localhost") as http:
        yield http


@pytest.fixture
def http(base: AdaptedBase, tmp_path: Path) -> Iterator[TestClient]:
    with server(base, tmp_path) as client:
        yield client


def test_requests_are_done_in_their_order_and_once(http: TestClient) -> None:
    straight, crossed = Caller(http).begin(), Caller(http).begin()
    expected = straight.train(2)
    late = crossed.submit(seq=3)
    crossed.step(2)
    crossed.submit(seq=1)
    again = crossed.submit(seq=1)  # sent twice: a connection broke
    crossed.step(4)
    assert crossed.logps(late) == expected
    assert again == f"{crossed.model}:1"


def test_three_at_once_get_what_each_gets_alone(base: AdaptedBase, tmp_path: Path) -> None:
    def alone(sign: float, rank: int) -> Any:
        with server(base, tmp_path / f"{sign}{rank}") as http:
            one = Caller(http, rank).begin()
            return one.train(3, sign), one.sample(num_samples=3).SerializeToString()

    kinds = [(1.0, 4), (-1.0, 4), (1.0, 2)]
    expected = [alone(*kind) for kind in kinds]
    with server(base, tmp_path / "all") as http:
        callers = [Caller(http, rank).begin() for _, rank in kinds]
        last = [""] * 3
        for _ in range(3):
            for i, (caller, (sign, _)) in enumerate(zip(callers, kinds, strict=True)):
                last[i] = caller.submit(sign)
                caller.step()
        found = [
            (caller.logps(one), caller.sample(num_samples=3).SerializeToString())
            for caller, one in zip(callers, last, strict=True)
        ]
    assert found == expected


@pytest.mark.parametrize("steps", [3, 27])  # before and after a snapshot
def test_a_killed_server_goes_on_as_if_nothing_had_been(base: AdaptedBase, tmp_path: Path, steps: int) -> None:
    with server(base, tmp_path / "never") as http:
        expected = Caller(http).begin().train(steps + 2)
    with server(base, tmp_path / "killed") as http:
        caller = Caller(http).begin()
        caller.train(steps)
        pending = caller.submit()  # accepted, and perhaps not done
    journal = next((tmp_path / "killed").glob("sessions/*/models/0/journal"))
    with journal.open("ab") as opened:
        opened.write(b'{"seq_id": 99, "kind": "optim_step", "length": 500}\nhalf of it')
    with server(base, tmp_path / "killed") as http:
        caller.http = http
        caller.post("session_heartbeat", session_id=caller.session)
        assert len(caller.logps(pending)) == 3
        caller.step()
        assert caller.train(1) == expected


def test_a_name_is_not_overwritten_unless_asked_and_a_replay_finds_its_own(
    base: AdaptedBase, tmp_path: Path
) -> None:
    def save(caller: Caller, **change: Any) -> Any:
        return caller.done(
            caller.post("save_weights", model_id=caller.model, seq_id=caller.next(), path="a", **change)
        )

    with server(base, tmp_path) as http:
        caller = Caller(http).begin()
        caller.train(1)
        path = save(caller)["path"]
        assert "is there already" in save(caller)["error"]
        assert save(caller, overwrite=True)["path"] == path == f"tinker://{caller.model}/weights/a"
        expected = caller.train(1)
    with server(base, tmp_path) as http:  # the journal is done again, the saves in it too
        caller.http = http
        again = caller.post(
            "load_weights", model_id=caller.model, seq_id=caller.next(), path=path, optimizer=True
        )
        assert caller.done(again)["path"] == path
        assert caller.train(1) == expected
        second = caller.post(
            "load_weights", session_id=caller.session, model_seq_id=1, path=path, optimizer=True
        )
        other = Caller(http)
        other.model = caller.done(second)["model_id"]
        assert other.train(1) == expected
        assert caller.post("weights_info", tinker_path=path)["lora_rank"] == 4
        listed = http.get("/api/v1/checkpoints").json()["checkpoints"]
        assert [one["tinker_path"] for one in listed] == [path]
        assert http.delete(f"/api/v1/training_runs/{caller.model}/checkpoints/weights/a").status_code == 200
        caller.post("weights_info", 404, tinker_path=path)


def test_samples_repeat_by_seed_stop_and_tell_log_probs(http: TestClient) -> None:
    caller = Caller(http).begin()
    sampler = caller.sampler()
    asked: dict[str, Any] = {"num_samples": 2, "sampling_params": {"seed": 5, "stop": []}, "sampler": sampler}
    first = caller.sample(seq=0, topk_sample_logprobs=2, **asked)
    assert first.sequences[0].tokens == caller.sample(seq=1, **asked).sequences[0].tokens
    assert first.sequences[0].tokens != first.sequences[1].tokens
    tokens = np.frombuffer(first.sequences[0].tokens, np.int32)
    assert len(tokens) == 6
    assert first.sequences[0].stop_reason == schema.AT_LENGTH
    likely = first.sequences[0].topk_sampled_logprobs
    assert (likely.length, likely.k) == (6, 2)
    held = caller.sample(
        seq=2, sampler=sampler, num_samples=1, sampling_params={"seed": 5, "stop": [int(tokens[2])]}
    )
    assert held.sequences[0].stop_reason == schema.STOPPED
    assert np.frombuffer(held.sequences[0].tokens, np.int32).tolist() == tokens[:3].tolist()
    told = caller.sample(seq=3, sampler=sampler, prompt_logprobs=True, topk_prompt_logprobs=3)
    prompt = np.frombuffer(told.prompt_logprobs, np.float32)
    assert np.isnan(prompt[0])
    assert prompt[1:] == pytest.approx(caller.logps(caller.submit())[:2], abs=1e-4)
    assert told.topk_prompt_logprobs.length == 3


def test_calls_computed_together_get_what_each_gets_alone(
    base: AdaptedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts have three lengths, and some samples end early."""
    engines, found, rows = SamplingEngines(base), [], []
    engine = engines.engine(None)
    if not engine.running_batch(Sampling(), 1):
        pytest.skip("this processor rounds a row by its company, and calls are computed one by one")
    running = engine.running_batch

    def counted(sampling: Sampling, count: int) -> Any:
        rows.append(count)
        return running(sampling, count)

    monkeypatch.setattr(engine, "running_batch", counted)
    for one in range(9):
        body = {
            "prompt": {"chunks": [{"tokens": [5, 6, 7, 8 + one][one % 3 :]}]},
            "sampling_params": {"max_tokens": 3 + one, "seed": one, "stop": [9, 10, 11]},
            "num_samples": 1 + one % 3,
        }
        found.append(WaitingCall(str(one), checked(SampleCall, body), base, None, ()))
    queue = SampleQueue()
    for waiting in found:
        queue.put(waiting)
    together = queue.take("2")
    assert len(together) == len(found)
    assert [one.id for one in together][:2] == ["2", "0"]
    assert queue.take("0") == []
    answers = engines.sample(together)
    assert rows == [18], "one batch"
    assert answers == [engines.sample([one])[0] for one in together]
    assert len(queue) == 0


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_p": 0.5}])
def test_calls_of_another_kind_are_computed_by_themselves(base: AdaptedBase, change: dict[str, Any]) -> None:
    queue = SampleQueue()
    for name, settings in (("a", {}), ("b", change)):
        body = {"prompt": {"chunks": [{"tokens": [5, 6, 7, 8]}]}, "sampling_params": settings}
        queue.put(WaitingCall(name, checked(SampleCall, body), base, None, ()))
    assert [one.id for one in queue.take("a")] == ["a"]


def test_a_full_queue_asks_to_come_back(base: AdaptedBase, tmp_path: Path) -> None:
    with server(base, tmp_path, most_samples=0) as http:
        assert "ask again later" in json.dumps(Caller(http).begin().sample(429))


def test_a_refused_request_keeps_its_place(http: TestClient) -> None:
    caller = Caller(http).begin()
    wrong = caller.submit(loss_fn="stable_reinforce")
    said = caller.fetch(wrong).json()
    assert said["category"] == "user"
    assert "not public" in said["error"]
    unknown = caller.post(
        "optim_step", model_id=caller.model, seq_id=caller.next(), adam_params={"momentum": 1.0}
    )
    assert "adam_params.momentum is not supported" in caller.done(unknown)["error"]
    assert caller.train(1)


def test_unknown_fields_newer_clients_and_strangers_are_refused(http: TestClient) -> None:
    caller = Caller(http).begin()
    assert "tinker>=0.38,<0.39" in json.dumps(
        caller.post("create_session", 400, tags=[], user_metadata=None, sdk_version="0.41.0")
    )
    asked = {"session_id": caller.session, "model_seq_id": 1, "lora_config": {"rank": 4}}
    assert "no base model" in json.dumps(caller.post("create_model", 404, base_model="other", **asked))
    asked |= {"base_model": "tiny"}
    assert "dropout" in json.dumps(caller.post("create_model", 400, **(asked | {"dropout": 0.1})))
    assert "optimizer_config" in json.dumps(
        caller.post("create_model", 400, **asked, optimizer_config={"type": "dimuon"})
    )
    assert "top_k" in json.dumps(caller.sample(400, sampling_params={"top_k": 5}))
    caller.post("session_heartbeat", 404, session_id="../../etc")
    assert caller.fetch(f"{caller.model}:77").status_code == 410
    newer = schema.new(
        "ForwardBackwardRequest", model_id=caller.model, seq_id=caller.next()
    ).SerializeToString()
    sent = caller.http.post("/api/v1/forward_backward", content=newer + b"\x98\x06\x01")  # field 99
    assert "field 99 is not known here" in caller.done(sent.json())["error"]


def test_a_model_that_is_let_go_is_answered_and_stays_until_its_session_ends(http: TestClient) -> None:
    caller = Caller(http).begin()
    caller.train(1)
    answer = caller.done(caller.post("unload_model", model_id=caller.model))
    assert answer == {"type": "unload_model", "model_id": caller.model}
    caller.train(1)


def test_a_finished_session_frees_what_only_it_could_use(http: TestClient, tmp_path: Path) -> None:
    caller = Caller(http).begin()
    caller.train(1)
    caller.post(f"sessions/{caller.session}/finish", reason={"type": "success"}, detail=None)
    caller.post("session_heartbeat", 400, session_id=caller.session)
    left = [file.name for file in tmp_path.glob("sessions/*/models/0/*")]
    assert left == ["model.json"]
