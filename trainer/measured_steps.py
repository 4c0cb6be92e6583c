"""What a run will take: some of its steps and of its evals, measured before it begins.

They run in a process of their own, so that its peak of memory is the run's, and in a folder that is thrown
away. An untrained model writes until its tokens are up: a measure of a warm start's successor is an upper one.
"""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vertigym import envs
from vertigym.core.errors import ConfigError, VertigymError
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite, shortened, task_list
from vertigym.learner.clock import peak_resident
from vertigym.learner.ranks import join_ranks
from vertigym.policies.engine import Engine
from vertigym.policies.model_source import find_model
from vertigym.trainer import setup
from vertigym.trainer.config import RunConfig
from vertigym.trainer.gatekeeper import open_suites
from vertigym.trainer.run import Run
from vertigym.trainer.training_session import TrainingSession

STEPS = 3  # the first is not counted: it sets up what the others find
EVAL_TASKS = 8  # of each environment of a suite, and four times as many while they take under a second


def measured_steps(config: RunConfig) -> dict[str, float]:
    """Seconds a step and an eval, minutes in all, and the most memory, in GB.

    Raises:
        ConfigError: these steps cannot be run, and why. DataError: there is no such model.
    """
    names = setup.models_of(config)
    if names["model"] != "tiny":  # found here, once
        config = config.model_copy(update={"model": str(find_model(names["model"]).folder), "revision": ""})
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            found = pool.submit(_trial, config).result()
        except BrokenProcessPool:
            raise ConfigError(
                f"{config.name}: the system ended the first steps: most often they need more memory than there "
                "is; take fewer rollout.tasks, a smaller microbatch_tokens, or a smaller model"
            ) from None
    if isinstance(found, str):
        raise ConfigError(found)
    return found


def _trial(config: RunConfig) -> dict[str, float] | str:
    """The measures, or what an error says: not every error can be sent."""
    try:
        return _measures(config)
    except VertigymError as error:
        return str(error)


def _measures(config: RunConfig) -> dict[str, float]:
    if config.threads:
        torch.set_num_threads(config.threads)
    before = round(peak_resident() / 1e9, 2)
    with TemporaryDirectory() as folder, join_ranks() as ranks:
        trial = config.model_copy(update={"output": Path(folder)})
        run = Run.start(trial, setup.models_of(trial))
        session = TrainingSession(trial, run, envs.make(trial.env), None, ranks, lambda _: None)
        with closing(session.engine), closing(session):
            most = min(STEPS, config.steps)
            steps = [_seconds(partial(session.algorithm.step, step)) for step in range(most)]
            session.engine.refresh(most)
            an_eval = sum(_eval_seconds(suite, session.engine) for suite in open_suites(config.eval))
    a_step = min(steps[1:] or steps)
    evals = 1 + -(-config.steps // config.eval.every) if config.eval else 0
    found = {"seconds a step": round(a_step, 2)}
    if evals:
        found["seconds an eval"] = round(an_eval, 1)
    found["minutes in all"] = round((config.steps * a_step + evals * an_eval) / 60, 1)
    found["memory in GB"] = round(peak_resident() / 1e9, 2)
    found["libraries in GB"] = before
    if torch.cuda.is_available():
        found["GPU memory in GB"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)
    return found


def _eval_seconds(suite: Suite, engine: Engine) -> float:
    """What all of its tasks take, by some of them."""
    everything, most = len(task_list(suite).tasks), EVAL_TASKS
    while True:
        some = shortened(suite, tasks=most)
        took, count = _seconds(partial(run_suite, some, engine)), len(task_list(some).tasks)
        if took > 1 or count == everything:
            return took * everything / count
        most *= 4


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
