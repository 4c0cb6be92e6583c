"""The real client (PyPI `tinker`) against a server in a process of its own, an endpoint after the other."""

from collections.abc import Iterator
from typing import Any

import pytest

from vertigym.policies import tiny

from .tinker_server import served

tinker = pytest.importorskip("tinker", reason="the client: pip install 'tinker>=0.38,<0.39'")
pytest.importorskip("peft")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tinker")
    tiny.build(["the cat sat on the mat"] * 2, folder / "base", size=tiny.TinySize(hidden=16, layers=1))
    with served(folder / "base", folder / "store") as address:
        yield address


@pytest.fixture(scope="module")
def service(url: str) -> Any:
    return tinker.ServiceClient(base_url=url, api_key="tml-local")


@pytest.fixture(scope="module")
def model(service: Any) -> Any:
    return service.create_lora_training_client(base_model="tiny", rank=4, seed=1).result()


def datum(**inputs: Any) -> Any:
    tokens = tinker.types.ModelInput.from_ints([5, 6, 7])
    return tinker.types.Datum(model_input=tokens, loss_fn_inputs={"target_tokens": [6, 7, 8], **inputs})


def loss(model: Any, name: str = "cross_entropy", **inputs: Any) -> float:
    data = [datum(**(inputs or {"weights": [1.0, 1.0, 1.0]}))]
    found: float = model.forward(data, name).result().metrics["loss:sum"]
    return found


def test_capabilities_and_info(service: Any, model: Any) -> None:
    assert [m.model_name for m in service.get_server_capabilities().supported_models] == ["tiny"]
    info = model.get_info()
    assert (info.model_data.model_name, info.lora_rank) == ("tiny", 4)
    assert len(model.get_tokenizer()) > 256


def test_training_lowers_the_loss_and_a_second_call_waits_its_turn(model: Any) -> None:
    before = loss(model)
    for _ in range(3):
        done = model.forward_backward([datum(weights=[1.0, 1.0, 1.0])] * 3, "cross_entropy")
        stepped = model.optim_step(tinker.types.AdamParams(learning_rate=0.02))
    assert len(done.result().loss_fn_outputs) == 3
    assert stepped.result().metrics["grad_norm:last"] > 0
    assert loss(model) < before


@pytest.mark.parametrize("name", ["importance_sampling", "ppo", "cispo", "dro"])
def test_losses_of_policies(model: Any, name: str) -> None:
    assert loss(model, name, logprobs=[-1.0, -5.0, -5.0], advantages=[1.0, -1.0, 0.5]) != 0


def test_a_custom_loss_runs_in_the_client(model: Any) -> None:
    def squares(data: Any, logps: Any) -> Any:
        return sum((one**2).sum() for one in logps), {"squares:sum": 1.0}

    found = model.forward_backward_custom([datum()], squares).result()
    assert found.metrics["loss:sum"] > 0
    model.optim_step(tinker.types.AdamParams(learning_rate=0.0)).result()


def test_what_is_refused_says_why(model: Any) -> None:
    with pytest.raises(Exception, match="definition is not public"):
        loss(model, "stable_reinforce", logprobs=[-1.0] * 3, advantages=[1.0] * 3)


def test_save_load_and_sample(service: Any, model: Any) -> None:
    before = loss(model)
    state = model.save_state("state").result().path
    again = service.create_training_client_from_state_with_optimizer(state).result()
    assert loss(again) == before
    path = model.save_weights_for_sampler("for-sampling").result().path
    params = tinker.types.SamplingParams(max_tokens=4, seed=3, stop=[])
    prompt = tinker.types.ModelInput.from_ints([5, 6, 7])
    saved = service.create_sampling_client(model_path=path).result().sample(prompt, 2, params).result()
    current = model.save_weights_and_get_sampling_client().result()
    now = current.sample(prompt, 2, params).result()
    assert [s.tokens for s in saved.sequences] == [s.tokens for s in now.sequences]
    assert len({s.sequence_id for s in now.sequences}) == 2
    assert current.compute_logprobs(prompt).result()[0] is None
    base = service.create_sampling_client(base_model="tiny").result().sample(prompt, 1, params).result()
    assert len(base.sequences[0].logprobs) == 4


def test_a_hundred_samples_at_once(service: Any) -> None:
    client = service.create_sampling_client(base_model="tiny").result()
    params = tinker.types.SamplingParams(max_tokens=3, stop=[])
    prompt = tinker.types.ModelInput.from_ints([5, 6])
    futures = [client.sample(prompt, 1, params) for _ in range(100)]
    assert all(len(future.result().sequences[0].tokens) == 3 for future in futures)
