"""A harness of verifiers that asks from the runner's own process, where `null` starts a Python for each turn.

A file that imports nothing of ours: `--env.player.harness.id in_process_chat` finds it on the path.
"""

from typing import Any

import verifiers.v1 as vf
from openai import AsyncOpenAI
from verifiers.v1.configs.harness import HarnessConfig
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult

__all__ = ["InProcessChat"]


class InProcessChat(vf.Harness[HarnessConfig]):  # type: ignore[misc]  # verifiers may not be installed
    APPENDS_SYSTEM_PROMPT = SUPPORTS_RESUME = True
    EXECUTES_CODE = NEEDS_CONTAINER = False

    async def launch(
        self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: Any, data: Any
    ) -> ProgramResult:
        system, prompt = self.resolve_prompt(data)
        asked: list[Any] = [{"role": "system", "content": system}] if system else []
        asked += (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else map(message_to_wire, prompt)
        )
        async with AsyncOpenAI(
            base_url=endpoint, api_key=secret
        ) as client:  # tries again, as that of `null` does
            await client.chat.completions.create(model=ctx.model, messages=asked)
        return ProgramResult(0, "", "")
