"""A taskset for version 1 of verifiers: sums, an exact reward, and with SUMS_TOOL a tool that adds, which this
file serves where it is run."""

import os
from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf

__all__ = ["SumTaskset"]


class Adder(vf.Toolset[vf.ToolsetConfig, vf.State]):  # type: ignore[misc]  # verifiers may not be installed
    @vf.tool  # type: ignore[untyped-decorator]
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b


class SumData(vf.TaskData):  # type: ignore[misc]
    answer: str = ""


class SumTask(vf.Task[SumData]):  # type: ignore[misc]
    @classmethod
    def toolsets(cls, config: Any) -> list[Adder]:
        return [Adder(vf.ToolsetConfig())] if "SUMS_TOOL" in os.environ else []

    @vf.reward(weight=1.0)  # type: ignore[untyped-decorator]
    async def exact(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == self.data.answer)


class SumTaskset(vf.Taskset[SumTask, vf.TasksetConfig]):  # type: ignore[misc]
    def load(self) -> Iterator[SumTask]:
        for i in range(3):
            yield SumTask(
                SumData(name=f"t{i}", prompt=f"What is {i} + 10?", answer=str(i + 10)), self.config.task
            )


if __name__ == "__main__":
    Adder.run()
