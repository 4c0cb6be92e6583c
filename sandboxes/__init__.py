"""Run untrusted programs: one contract, several backends, no verdict inside the sandbox.

from vertigym.sandboxes import Job, SandboxPool, call
with SandboxPool() as pool:
    pool.run(Job("def add(a, b): return a + b", call="add", inputs=[call(1, 2)])).result
"""

from vertigym.sandboxes.backends import OpenSandbox, SandboxBackend, register_backend
from vertigym.sandboxes.contract import CallArguments, Job, JobLimits, JobOutcome, Level, Reply, Status, call
from vertigym.sandboxes.levels import LevelReport, best_level, levels
from vertigym.sandboxes.pool import SandboxPool, shared_pool

__all__ = [
    "CallArguments",
    "Job",
    "JobLimits",
    "JobOutcome",
    "Level",
    "LevelReport",
    "OpenSandbox",
    "Reply",
    "SandboxBackend",
    "SandboxPool",
    "Status",
    "best_level",
    "call",
    "levels",
    "register_backend",
    "shared_pool",
]
