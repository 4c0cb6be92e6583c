"""How a rollout asks a policy: prompts are added, completions collected. Here for a policy of which nothing is
known but `generate`: all prompts that wait are one batch, whose rows are the same whatever takes its time.
"""

from typing import Protocol

from vertigym.core.types import Completion, Policy, Prompt, Sampling, StopReason


class OpenTurns(Protocol):
    """The turns that wait for a policy; `RunningBatch` is another."""

    free_running: bool  # a completion is the same whatever it was asked for together with

    @property
    def busy(self) -> bool:
        """Whether a completion is asked for that has not been collected."""
        ...

    def add(self, chat: int, prompt: Prompt) -> None:
        """Ask for a completion; a chat has one open prompt at a time.

        Raises:
            InputError: the prompt cannot be rendered.
        """
        ...

    def leave(self, chat: int) -> None:
        """The chat will not go on."""
        ...

    def collect(self) -> list[tuple[int, Completion]]:
        """Go on for a while; the chats whose completion has ended, and it.

        Raises:
            EngineError: the engine failed as a whole.
        """
        ...

    def close(self) -> None:
        """Give up what has not ended."""
        ...


class TurnBatches:
    """Turns in lock-step. `retries`: how often a failed generation is tried again."""

    free_running = False

    def __init__(self, policy: Policy, sampling: Sampling, retries: int) -> None:
        self._policy, self._sampling, self._retries = policy, sampling, retries
        self._waiting: dict[int, Prompt] = {}

    @property
    def busy(self) -> bool:
        """Whether prompts wait."""
        return bool(self._waiting)

    def add(self, chat: int, prompt: Prompt) -> None:
        """Let a prompt wait for the next batch."""
        self._waiting[chat] = prompt

    def leave(self, chat: int) -> None:
        """Nothing is kept of a chat."""

    def collect(self) -> list[tuple[int, Completion]]:
        """A completion of every prompt that waits, in order."""
        waiting, self._waiting = self._waiting, {}
        prompts = list(waiting.values())
        completions = self._policy.generate(prompts, self._sampling)
        for _ in range(self._retries):
            failed = [i for i, c in enumerate(completions) if c.stop_reason is StopReason.ERROR]
            if not failed:
                break
            again = self._policy.generate([prompts[i] for i in failed], self._sampling)
            for i, completion in zip(failed, again, strict=True):
                completions[i] = completion
        return list(zip(waiting, completions, strict=True))

    def close(self) -> None:
        """There is nothing to give up."""
