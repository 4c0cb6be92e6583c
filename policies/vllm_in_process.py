"""vLLM in this process. New weights go to it in memory; no file is written, nothing is served.

The one idea: vLLM runs on a thread of its own, so that every call (start, a batch, new weights) has a time
limit. A call that does not return cannot be interrupted: the thread is abandoned and never used again.
"""

import contextlib
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch

from vertigym.core.errors import ConfigError, EngineError, MissingDependencyError
from vertigym.policies.engine import GenerationRequest, GenerationResult, Weights
from vertigym.policies.vllm_backend import VLLMConfig, sampling_parameters

T = TypeVar("T")

# Set before vLLM reads them. Threads stay as torch has them.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_TOKENS_ON_CPU = 8192  # of prompts read in one step
_BLOCK_ON_CPU = 32  # the smallest its CPU attention has; vLLM's own 128 is longer than many whole prompts


def engine_arguments(folder: str | Path, config: VLLMConfig, *, dtype: str, context: int) -> dict[str, Any]:
    """vLLM's engine arguments, by its names: the same in process and in a server."""
    # A seeded request whose prompt is read in parts ends vLLM on a CPU ("CPU Generator does not use offset").
    unchunked = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, _TOKENS_ON_CPU)}
    device = {} if torch.cuda.is_available() else {"block_size": _BLOCK_ON_CPU, **unchunked}
    return {
        "model": str(folder),
        "dtype": dtype,
        "max_model_len": context,
        "max_num_seqs": config.sequences,
        "gpu_memory_utilization": config.memory,
        "enforce_eager": config.eager,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # not the folder's: it may ask for top-k or a penalty
        "logprobs_mode": "processed_logprobs",  # of the distribution sampled from
        "skip_tokenizer_init": True,
        **device,
    }


def require_vllm(purpose: str) -> None:
    """
    Raises:
        MissingDependencyError: vLLM is not installed.
    """
    if find_spec("vllm") is None:
        raise MissingDependencyError("vllm", "vllm", purpose)


class InProcessVLLM:
    """A VLLMBackend in this process.

    Raises:
        MissingDependencyError: vLLM is not installed. ConfigError: it cannot run this model here.
        EngineError: it did not start in time.
    """

    def __init__(self, folder: str | Path, config: VLLMConfig, *, dtype: str, context: int) -> None:
        require_vllm('engine "vllm"')
        if _ranks() > 1:
            raise ConfigError(
                "vLLM in process cannot share torch's process group with a trainer of several ranks: "
                'rollout.vllm.mode = "server"'
            )
        self._config = config
        self._broken = ""
        self._label = "default"  # vLLM's label of the weights it started with
        self._thread = _Thread()
        settings = engine_arguments(folder, config, dtype=dtype, context=context)
        try:
            self._llm = self._call("vLLM to start", config.start_s, "start_s", lambda: _open(settings, config))
        except EngineError:
            raise
        except Exception as error:  # of any kind: it is about this model on this machine
            raise ConfigError(f"vLLM cannot run {folder} here: {_line(error)}") from None

    def generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        """All requests as one batch, which vLLM schedules.

        Raises:
            EngineError: out of memory, out of time, or any other failure inside vLLM.
        """
        what = f"vLLM to generate {len(requests)} sequences"
        return self._use(what, "request_s", lambda: self._generate(requests))

    def load(self, weights: Weights, version: int) -> None:
        """Give vLLM new weights.

        Raises:
            EngineError: vLLM refused them or exceeded its time limit.
        """
        self._use(f"vLLM to take over weights {version}", "sync_s", lambda: self._load(weights, version))

    def close(self) -> None:
        """Forget the model."""
        if not self._broken:
            self._broken = "it was closed"
            with contextlib.suppress(EngineError):
                self._call("vLLM to close", 60, "sync_s", self._close)
            self._thread.stop()

    def _use(self, what: str, key: str, do: Callable[[], T]) -> T:
        """Call vLLM. After a failure it is not used again: half-loaded weights generate without an error."""
        if self._broken:
            raise EngineError(f"vLLM cannot be used any more: {self._broken}")
        try:
            return self._call(what, getattr(self._config, key), key, do)
        except EngineError as error:
            self._broken = str(error)
            raise
        except Exception as error:
            memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
            advice = "; lower rollout.vllm.sequences or rollout.vllm.memory" if memory else ""
            self._broken = f"waiting for {what}: {_line(error)}{advice}"
            raise EngineError(self._broken) from error

    def _call(self, what: str, seconds: float, key: str, do: Callable[[], T]) -> T:
        try:
            return self._thread.call(do, seconds)
        except queue.Empty:
            reason = f"waited {seconds:g} s (rollout.vllm.{key}) for {what}"
            raise EngineError(f"{reason}: it has not come back; the run can be resumed") from None

    def _generate(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": list(request.prompt)} for request in requests],
            [SamplingParams(**sampling_parameters(request)) for request in requests],
            use_tqdm=False,
        )
        return [_result(output.outputs[0], self._label) for output in outputs]

    def _load(self, weights: Weights, version: int) -> None:
        with torch.no_grad():
            state = weights()
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(state.items())})
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset")
        self._label = str(version)
        self._llm.llm_engine.set_weight_version(self._label)

    def _close(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        cleanup_dist_env_and_memory()


class _Thread:
    """One daemon thread that runs functions in order."""

    def __init__(self) -> None:
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        threading.Thread(target=self._run, name="vllm", daemon=True).start()

    def call(self, do: Callable[[], T], seconds: float) -> T:
        """The result of `do`, or its exception.

        Raises:
            queue.Empty: not within `seconds`.
        """
        answer: queue.Queue[tuple[bool, Any]] = queue.Queue()

        def work() -> None:
            try:
                answer.put((True, do()))
            except BaseException as error:  # of any kind: the caller gets it
                answer.put((False, error))

        self._work.put(work)
        fine, value = answer.get(timeout=seconds)
        if not fine:
            raise value
        result: T = value
        return result

    def stop(self) -> None:
        """End the thread after its present function."""
        self._work.put(None)

    def _run(self) -> None:
        while work := self._work.get():
            work()


def _open(settings: dict[str, Any], config: VLLMConfig) -> Any:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # no subprocess
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = f"{config.cache_gib:g}"
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vllm import LLM

        logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
        return LLM(**settings, distributed_executor_backend="uni")


def _result(output: Any, label: str) -> GenerationResult:
    tokens = list(output.token_ids)
    if output.finish_reason not in ("stop", "length"):
        return GenerationResult(error=f"vLLM ended it with {output.finish_reason!r}")
    if stray := {span.version for span in output.weight_versions or ()} - {label}:
        return GenerationResult(error=f"written with weights {sorted(stray)}, not {label!r}")
    logps = [at[token].logprob for token, at in zip(tokens, output.logprobs, strict=True)]
    return GenerationResult(tokens, logps)


def _line(error: BaseException) -> str:
    """The last line of an error, where vLLM puts the reason."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"[:300]


def _ranks() -> int:
    """How many processes train together; vLLM, once opened here, makes a group of one."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
