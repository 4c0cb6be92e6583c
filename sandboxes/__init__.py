"""Run untrusted programs: one contract, several backends, no verdict inside the sandbox.

from vertigym.sandboxes import Job, Pool, call
with Pool() as pool:
    pool.run(Job("def add(a, b): return a + b", call="add", inputs=[call(1, 2)])).result
"""

from vertigym.sandboxes.contract import Call, Job, Level, Limits, Outcome, Reply, Status, call
from vertigym.sandboxes.levels import LevelReport, best_level, levels
from vertigym.sandboxes.pool import Pool, shared_pool

__all__ = [
    "Call",
    "Job",
    "Level",
    "LevelReport",
    "Limits",
    "Outcome",
    "Pool",
    "Reply",
    "Status",
    "best_level",
    "call",
    "levels",
    "shared_pool",
]
