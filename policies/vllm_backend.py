"""What the ways to run vLLM share: the settings, the sampling parameters, the interface of a backend.

The one idea: vLLM decides nothing. The chat template, the end-of-turn tokens, the seeds and every sampling
parameter are ours, so its tokens can be compared, one by one, with what the trainer computes.

    policies/vllm_in_process   vLLM in this process, weights handed over in memory
    policies/vllm_pool         vLLM servers, ours or given, weights through a folder
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from vertigym.policies.engine import GenerationRequest, GenerationResult, Weights
from vertigym.policies.registry import ProbedConfig


class VLLMConfig(ProbedConfig):
    """How vLLM is run, `[rollout.vllm]`. Limits are in seconds; one that passes ends the run, which resumes."""

    mode: Literal["in_process", "server"] = Field(
        "in_process", description="in the trainer's process, or a server"
    )
    url: str | tuple[str, ...] = Field(
        "", description="server: one that runs already, http://host:port, or several; empty: start one"
    )
    servers: int = Field(1, ge=1, description="server: how many to start, on this machine")
    exchange: str = Field(
        "", description="server: a folder both sides see, for weights; empty: a temporary one"
    )
    memory: float = Field(0.3, gt=0, lt=1, description="share of the device's memory; on a CPU: see cache_gib")
    cache_gib: float = Field(1.0, gt=0, description="on a CPU: the KV cache")
    context: int = Field(
        0,
        ge=0,
        description="the most tokens of a prompt and its answer; 0: the run's longest prompt and max_tokens, "
        "or, where episodes have several turns, the model's own",
    )
    sequences: int = Field(256, ge=1, description="decoded at once")
    eager: bool = Field(True, description="false: compile; pays off in long runs")
    start_s: float = Field(600, gt=0, description="until a server answers, at first and after a failure")
    sync_s: float = Field(300, gt=0, description="for new weights to be taken over")
    request_s: float = Field(600, gt=0, description="server: one request; in process: one batch")
    retries: int = Field(3, ge=0, description="server: how often a batch's lost requests are sent again")

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of servers that run already."""
        return (self.url,) if isinstance(self.url, str) and self.url else tuple(self.url)

    @field_validator("mode", mode="before")
    @classmethod
    def _renamed(cls, mode: Any) -> Any:
        if mode == "process":
            raise ValueError('"process" has a new name: mode = "in_process"')
        return mode

    @model_validator(mode="after")
    def _fits(self) -> "VLLMConfig":
        if self.url and self.mode != "server":
            raise ValueError('url is the address of a server: mode = "server"')
        if not all(url.startswith(("http://", "https://")) for url in self.urls):
            raise ValueError("url: an address that starts with http:// or https:// is needed")
        if len(set(self.urls)) < len(self.urls):
            raise ValueError("url: one address is there twice")
        if self.servers > 1 and (self.url or self.mode != "server"):
            raise ValueError('servers says how many to start: mode = "server", and no url')
        if self.exchange and self.mode != "server":
            raise ValueError('exchange is for servers, in process weights stay in memory: mode = "server"')
        return self


def sampling_parameters(request: GenerationRequest) -> dict[str, Any]:
    """vLLM's sampling parameters, by its names. All others keep a neutral default (no top-k, no penalties): a
    model folder's generation_config.json, which may set them, is not read. The one log-prob asked for is that
    of the sampled token."""
    # -100, the least that vLLM takes, leaves a banned token a probability of e^-100.
    bias = {"logit_bias": dict.fromkeys(request.banned, -100.0)} if request.banned else {}
    return bias | {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "stop_token_ids": list(request.stop),
        "logprobs": 0,
        "detokenize": False,
    }


class VLLMBackend(Protocol):
    """A running vLLM."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """One result a request, in order, all by the weights last loaded.

        Raises:
            EngineError: it failed as a whole, or exceeded its time limit.
        """
        ...

    def load(self, weights: Weights, version: int) -> None:
        """Take over weights, and empty the caches.

        Raises:
            EngineError: it failed or exceeded its time limit. Its weights are then unknown, so it generates no
                more.
        """
        ...

    def close(self) -> None:
        """Release what it holds. May be called twice."""
        ...
