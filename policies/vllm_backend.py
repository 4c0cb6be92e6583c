"""What the ways to run vLLM have in common: its settings, what it is asked, what comes back.

The one idea: nothing is left for vLLM to decide. The chat template, the end-of-turn tokens, the seeds and every
sampling parameter are ours, so its tokens can be compared, one by one, with what the trainer computes.

    policies/vllm_in_process   vLLM in this process, weights handed over in memory
    policies/vllm_pool         vLLM servers, ours or given, weights through a folder
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator
from torch import Tensor

from vertigym.core.config import Config

Weights = Callable[[], Mapping[str, Tensor]]  # the state of a whole model, by its Hugging Face names


class VLLMConfig(Config):
    """How vLLM is run, `[rollout.vllm]`. Limits are in seconds; one that passes ends the run, which resumes."""

    mode: Literal["process", "server"] = Field("process", description="in the trainer's process, or a server")
    url: str | tuple[str, ...] = Field(
        "", description="server: one that runs already, http://host:port, or several; empty: start one"
    )
    servers: int = Field(1, ge=1, description="server: how many to start, on this machine")
    exchange: str = Field(
        "", description="server: a folder both sides see, for weights; empty: a temporary one"
    )
    memory: float = Field(0.3, gt=0, lt=1, description="share of the device's memory; on a CPU: see cache_gib")
    cache_gib: float = Field(1.0, gt=0, description="on a CPU: the KV cache")
    sequences: int = Field(256, ge=1, description="decoded at once")
    eager: bool = Field(True, description="false: compile; pays off in long runs")
    start_s: float = Field(600, gt=0, description="until a server answers, at first and after a failure")
    sync_s: float = Field(300, gt=0, description="for new weights to be taken over")
    request_s: float = Field(600, gt=0, description="server: one request; in process: one batch")
    retries: int = Field(3, ge=0, description="server: how often a batch's lost requests are sent again")
    probe_every: int = Field(10, ge=1, description="compare log-probs with the trainer's every so many steps")
    probe_warn: float = Field(0.02, gt=0, description="mean difference, nats a token, that is warned about")
    probe_stop: float = Field(0.5, gt=0, description="mean difference that ends the run: not the same model")

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of servers that run already."""
        return (self.url,) if isinstance(self.url, str) and self.url else tuple(self.url)

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


@dataclass(frozen=True, slots=True)
class Order:
    """One sequence to write: everything vLLM is told about it."""

    prompt: Sequence[int]
    max_tokens: int
    seed: int
    temperature: float
    top_p: float
    stop: Sequence[int]

    def parameters(self) -> dict[str, Any]:
        """vLLM's sampling parameters, by its names. What is not named here keeps vLLM's neutral default (no
        top-k, no penalties): a model folder's generation_config.json, which may ask for them, is not read.
        The one log-prob asked for is that of the sampled token."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop_token_ids": list(self.stop),
            "logprobs": 0,
            "detokenize": False,
        }


@dataclass(frozen=True, slots=True)
class Written:
    """What vLLM wrote: tokens (the end-of-turn token included), their log-probs, or why there are none."""

    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    error: str = ""


class Backend(Protocol):
    """A running vLLM."""

    def write(self, orders: Sequence[Order]) -> list[Written]:
        """One an order, in order, all by the weights last loaded.

        Raises:
            EngineError: it failed as a whole, or did not finish in its time.
        """
        ...

    def load(self, weights: Weights, version: int) -> None:
        """Take over weights, and forget what was cached of earlier ones.

        Raises:
            EngineError: not done in time, or not at all. What it holds then is unknown, so it writes no more.
        """
        ...

    def close(self) -> None:
        """Give back what it holds. May be called twice."""
        ...
