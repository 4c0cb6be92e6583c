"""A harness of verifiers that asks from the runner's own process, where `null` starts a Python for each turn.

What a task with tools needs, `null` does. Nothing of ours is imported: `verifiers_worker` names it as
`verifiers_chat`, and finds it beside itself.
"""

from typing import Any

from openai import AsyncOpenAI
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.harnesses.null import NullHarness
from verifiers.v1.runtimes import ProgramResult

__all__ = ["InProcessChat"]


class InProcessChat(NullHarness):  # type: ignore[misc]  # verifiers may not be installed
    """One reply a turn."""

    async def setup(self, runtime: Any) -> None:
        """Nothing: `null` prepares its program when it is launched."""

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
        **more: Any,
    ) -> ProgramResult:
        """Ask once."""
        if mcp_urls:
            return await super().launch(ctx, trace, runtime, endpoint, secret, mcp_urls, data, **more)
        system, prompt = self.resolve_prompt(data)
        asked: list[Any] = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            asked.append({"role": "user", "content": prompt})
        else:
            asked += map(message_to_wire, prompt or ())
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, timeout=None) as client:
            await client.chat.completions.create(model=ctx.model, messages=asked)
        return ProgramResult(0, "", "")
