"""What clients ask for in JSON, as pydantic models. A field that is not declared is refused by name, unless its
value asks for nothing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from vertigym.dialects.chat_call import RefusedError, unsupported
from vertigym.dialects.wire_models import WireModel, validated
from vertigym.policies.tinker_weights import CHECKPOINT_NAME

R = TypeVar("R", bound="RemoteRequest")
NAME = rf"^{CHECKPOINT_NAME}$"


class RemoteRequest(WireModel):
    """A request's body, or a part of it."""

    type: str = ""


class CreateSession(RemoteRequest):
    """A client has started. Tags and metadata are kept."""

    sdk_version: str
    tags: list[str] = Field([])
    user_metadata: dict[str, Any] = Field({})
    project_id: str = ""
    display_name: str = ""


class OfSession(RemoteRequest):
    """A client is still there."""

    session_id: str


class AdapterShape(RemoteRequest):
    """Where adapters go, and how they start."""

    rank: int = Field(ge=1, le=1024)
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


class OptimizerChoice(RemoteRequest):
    """Which optimizer a model has."""

    type: str = "adamw"


class CreateModel(RemoteRequest):
    """A base with new adapters."""

    session_id: str
    model_seq_id: int = Field(ge=0)
    base_model: str
    lora_config: AdapterShape
    user_metadata: dict[str, Any] = Field({})
    optimizer_config: OptimizerChoice = OptimizerChoice()


class OfModel(RemoteRequest):
    """Something of one model."""

    model_id: str


class AdamRequest(RemoteRequest):
    """How Adam makes a step; the defaults are the client's."""

    learning_rate: float = Field(1e-4, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-12, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    grad_clip_norm: float = Field(0.0, ge=0)


class OptimStep(OfModel):
    """Apply the gradient that has come together."""

    seq_id: int = Field(ge=1)
    adam_params: AdamRequest


class SaveWeights(OfModel):
    """Keep the adapters and the optimizer's state."""

    seq_id: int = Field(ge=1)
    path: str = Field(pattern=NAME)
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: dict[str, str] = Field({})


class SaveForSampler(OfModel):
    """Keep the adapters: under a name, or for one sampling session."""

    seq_id: int = Field(ge=1)
    path: str | None = Field(None, pattern=NAME)
    sampling_session_seq_id: int | None = None
    kind: str = "snapshot"
    ttl_seconds: int | None = None
    user_metadata: dict[str, str] = Field({})


class LoadWeights(RemoteRequest):
    """Take over what was saved, in a model that is there or as a new one of a session."""

    path: str
    optimizer: bool
    model_id: str | None = None
    seq_id: int | None = Field(None, ge=1)
    session_id: str | None = None
    model_seq_id: int | None = Field(None, ge=0)
    base_model: str | None = None
    user_metadata: dict[str, Any] = Field({})
    optimizer_config: OptimizerChoice = OptimizerChoice()


class OfPath(RemoteRequest):
    """What is known of saved weights."""

    tinker_path: str


class CreateSampler(RemoteRequest):
    """Sample from a base, or from weights that were saved."""

    session_id: str
    sampling_session_seq_id: int = Field(ge=0)
    base_model: str | None = None
    model_path: str | None = None


class PromptChunk(RemoteRequest):
    """A part of a prompt; only tokens are read."""

    tokens: list[int]


class PromptTokens(RemoteRequest):
    """A prompt."""

    chunks: list[PromptChunk]


class SampleSettings(RemoteRequest):
    """How to sample. `stop` None: what ends a turn by the model's own config; an empty list: nothing does."""

    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = {"top_k": (-1, 0)}
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | list[str] | list[int] | None = None
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)


class SampleCall(RemoteRequest):
    """Continue a prompt, and say how likely its own tokens are."""

    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "prompt_alt_tokens_k": (0,),
        "record_stability_info": (False,),
    }
    prompt: PromptTokens
    sampling_params: SampleSettings
    num_samples: int = Field(1, ge=1, le=1024)
    sampling_session_id: str | None = None
    seq_id: int = Field(0, ge=0)
    base_model: str | None = None
    model_path: str | None = None
    prompt_logprobs: bool = False
    prompt_logprobs_last_n: int | None = Field(None, ge=1)
    topk_prompt_logprobs: int = Field(0, ge=0, le=1000)
    topk_sample_logprobs: int = Field(0, ge=0, le=1000)


class RetrieveFuture(RemoteRequest):
    """Is it done?"""

    request_id: str
    allow_metadata_only: bool = False


def checked(model: type[R], value: Any) -> R:
    """A body as a model, without a field that is not known here.

    Raises:
        RefusedError: where, and what is wrong.
    """
    read = validated(model, value)
    _refuse_rest(read, "")
    if isinstance(read, CreateModel | LoadWeights) and read.optimizer_config.type != "adamw":
        raise unsupported("optimizer_config", "but for adamw")
    return read


def _refuse_rest(model: WireModel, within: str) -> None:
    model.refuse_rest(within)
    for name in type(model).model_fields:
        value = getattr(model, name)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, WireModel):
                _refuse_rest(part, f"{within}{name}.")


def check_version(sdk: str) -> None:
    """
    Raises:
        RefusedError: a client whose requests may mean something else than what is done here.
    """
    if sdk and not sdk.startswith("0.38."):
        raise RefusedError(400, f"client tinker {sdk[:20]}: this server speaks with tinker>=0.38,<0.39")
