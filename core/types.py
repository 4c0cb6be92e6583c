"""The words: Task, Message, Sampling, Decoding, Prompt, Completion, Score, Trajectory, Policy.

Data goes one way:

    Task ─ Env.reset ─▶ messages ─▶ Prompt ─ Policy.generate ─▶ Completion ─ Env.step ─▶ … ─▶ Trajectory

Types that cross a file or a wire are pydantic; what stays inside the process is a frozen, slotted dataclass.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal, NotRequired, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")


class Message(TypedDict):
    """One chat message in the OpenAI form."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


class Task(BaseModel):
    """One thing to do. `cluster` names what tasks share (a rule, a template, a customer): standard errors and
    bootstraps resample clusters, not tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str | tuple[Message, ...]
    answer: Any = None
    info: dict[str, Any] = Field(default_factory=dict)
    split: Split = "train"
    cluster: str = ""

    def messages(self) -> list[Message]:
        """The prompt as chat messages (a plain string is one user message)."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [message.copy() for message in self.prompt]


class StopReason(StrEnum):
    """Why a completion or an episode ended."""

    STOP = "stop"  # the model ended its turn, or the environment ended the episode
    LENGTH = "length"  # the token limit cut the model off
    TURNS = "turns"  # the episode's turn limit
    ERROR = "error"  # the engine or the environment failed; never counts as the policy's doing


class Sampling(BaseModel):
    """How to sample. `temperature` 0 is greedy. Log-probs are always under the distribution sampled from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(1.0, ge=0, description="0: greedy")
    top_p: float = Field(
        1.0, gt=0, le=1, description="the likeliest tokens that together have this probability"
    )
    max_tokens: int = Field(256, ge=1, description="a turn")


@dataclass(frozen=True, slots=True)
class Decoding:
    """What one prompt asks of its completion, beside how the run samples.

    `stop` are strings that end it and are cut off; `ends` are strings that end it and stay. `grammar` is one of
    llguidance's (a variant of Lark) that the text must match; `alternatives` is how many likely tokens are told
    beside each sampled one (None: no token is told). An engine names in `honours` what it can do of the last
    two.
    """

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    grammar: str = ""
    alternatives: int | None = None

    def find_end(self, text: str) -> tuple[int, str] | None:
        """Where the first string that ends a completion cuts its text, and which it is."""
        stops = [(at, at, one) for one in self.stop if (at := text.find(one)) >= 0]
        ends = [(at, at + len(one), one) for one in self.ends if (at := text.find(one)) >= 0]
        return min(stops + ends)[1:] if stops or ends else None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy is asked to continue.

    Engines that own a tokenizer read `token_ids` when given (token in, token out) and render `messages`
    otherwise. `seed` fixes the random numbers of this one sample, whatever batch it is decoded in. `task` is
    for scripted policies, which may look at the answer; engines ignore it. `cancelled` says that nobody waits
    for the completion any more: an engine that asks between tokens may stop there. `on_text` is told the text
    so far, whole characters only, by an engine that writes token by token.
    """

    messages: Sequence[Message]
    token_ids: Sequence[int] | None = None
    seed: int = 0
    tools: Sequence[Mapping[str, Any]] = ()
    task: Task | None = None
    cancelled: Callable[[], bool] | None = None
    decoding: Decoding = Decoding()
    on_text: Callable[[str], None] | None = None

    def most_tokens(self, sampling: Sampling) -> int:
        """How long its completion may be."""
        return min(sampling.max_tokens, self.decoding.max_tokens or sampling.max_tokens)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's text and log-prob; `alternatives` are likely tokens in its place, the likeliest first."""

    text: str
    logprob: float
    alternatives: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy wrote. `token_ids` and `logprobs` (nats, one a token, the end-of-turn token included) are
    empty for policies that have no tokens. `prompt_ids` is what was actually fed. `stop_text` is the string of
    `Decoding` that ended it, `tokens` what `Decoding.alternatives` asks for."""

    text: str
    stop_reason: StopReason = StopReason.STOP
    token_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    prompt_ids: Sequence[int] = ()
    policy_version: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    error: str = ""
    stop_text: str = ""
    tokens: Sequence[TokenLogprob] = ()

    def cut(self, decoding: Decoding) -> "Completion":
        """The same, its text ended as asked by a policy that knows no stop strings."""
        if self.stop_text or not (end := decoding.find_end(self.text)):
            return self
        text, stop_text = self.text[: end[0]], end[1]
        return replace(self, text=text, stop_reason=StopReason.STOP, stop_text=stop_text)


@runtime_checkable
class Policy(Protocol):
    """Anything that answers prompts: an engine around a model, an endpoint, a script."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError: the engine failed as a whole. A failure of one prompt comes back as a Completion
                with `stop_reason` ERROR instead.
        """
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict. `value` None means *could not be scored*: the verifier or the machine failed. It is never
    turned into 0; such a sample is retried, then left out of baselines and losses, and counted.

    `parts` are named numbers that explain the value (also metrics with weight 0); `evidence` is whatever lets
    a person check the verdict.
    """

    value: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def unscored(cls, reason: str, **evidence: Any) -> "Score":
        """No verdict, and why."""
        return cls(None, {}, {"reason": reason, **evidence})


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens, exactly as the model saw and wrote them.

    A two-turn episode in one segment, with `P` prompt, `a` sampled, `o` observation tokens:

        token_ids  P P P a a a o o a a
        loss_mask  0 0 0 1 1 1 0 0 1 1     1 where the policy sampled the token
        logprobs   0 0 0 x x x 0 0 x x     under the distribution sampled from, nats
    """

    token_ids: Sequence[int]
    loss_mask: Sequence[int]
    logprobs: Sequence[float]

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.loss_mask) == len(self.logprobs)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode as it was sampled. Tokens are never re-made from text: where a chat template does not extend
    the earlier token ids exactly, a new Segment starts. `policy_version` is the oldest that wrote a turn."""

    task_id: str
    messages: Sequence[Message]
    score: Score
    segments: Sequence[Segment] = ()
    stop_reason: StopReason = StopReason.STOP
    policy_version: int = 0
    turns: int = 1
    turn_rewards: Sequence[float] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    cluster: str = ""
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """It as dicts and lists, those of its tokens not copied."""
        row, score = _fields(self), _fields(self.score)
        return row | {"score": score, "segments": [_fields(segment) for segment in self.segments]}

    @property
    def reply(self) -> str:
        """The last thing the policy wrote."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "assistant"), "")


def _fields(one: Any) -> dict[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one)}
