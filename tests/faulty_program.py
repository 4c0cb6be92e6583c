"""A program that asks through OpenAI's client over a line that fails in every way, and what must be true of it.

Calls are made eight at a time. By turns one is: sent; dropped before it leaves; dropped when the answer is
there; answered 500 before or after the server has it; sent twice; hung up on; slow to come. What the client
then does is its own affair: it tries again. Every other call has an idempotency key, and only those are
sent twice.

An episode may be doomed: its program gives up on an answer, crashes, is killed, or never ends.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any

from vertigym.core.types import Completion, Prompt, Sampling, Trajectory

ENDING = ("gives up", "crashes", "is killed")
DOOMS = (*ENDING, "never ends")

SCRIPT = """
import hashlib, json, os, signal, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
import httpx2, openai

order = json.loads(json.load(sys.stdin)["prompt"])
calls, doom = order["calls"], order["doom"]


class FailingLine(httpx2.HTTPTransport):
    def handle_request(self, request):
        send = super().handle_request
        if request.headers["x-stainless-retry-count"] != "0":
            return send(request)
        match int(request.headers["x-fault"]):
            case 1:
                raise httpx2.ConnectError("dropped")
            case 2:
                send(request).read()
                raise httpx2.ReadError("dropped with its answer")
            case 3:
                return httpx2.Response(500)
            case 4:
                send(request).read()
                return httpx2.Response(500)
            case 5 if "idempotency-key" in request.headers:
                with ThreadPoolExecutor(2) as both:
                    sent = [both.submit(send, request) for _ in range(2)]
                    one, other = (done.result() for done in sent)
                assert one.read() == other.read()
                return other
            case 6:
                self.hang_up(request, after=0.05)
            case 9:  # before any answer can come
                self.hang_up(request, after=0)
            case 7:
                time.sleep(0.05)
        return send(request)

    def hang_up(self, request, after):
        head = "".join(f"{name}: {value}\\r\\n" for name, value in request.headers.items())
        with socket.create_connection((request.url.host, request.url.port)) as line:
            line.sendall(f"POST {request.url.path} HTTP/1.1\\r\\n{head}\\r\\n".encode() + request.content)
            time.sleep(after)
        raise httpx2.ReadError("hung up")


def call(n):
    if doom and n == calls // 2:
        fail()
    fault = n % 8
    headers = {"x-fault": str(fault)} | ({"Idempotency-Key": f"key {n}"} if n // 8 % 2 else {})
    chat = [{"role": "user", "content": f"call {n}"}]
    done = client.chat.completions.create(model="m", messages=chat, extra_headers=headers)
    return done.choices[0].message.content


def fail():
    if doom == "crashes":
        os._exit(3)
    if doom == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if doom == "never ends":
        time.sleep(3600)
    try:
        client.with_options(max_retries=0).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "never mind"}], extra_headers={"x-fault": "9"})
    except openai.APIConnectionError:
        time.sleep(1)  # on a busy machine the server meets the call late


client = openai.OpenAI(max_retries=3, http_client=httpx2.Client(transport=FailingLine(), timeout=600))
with ThreadPoolExecutor(8) as pool:
    said = sorted(pool.map(call, range(calls)))
print(hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest())
"""


class KeptCalls:
    """A policy, and what it was asked and gave in each task's episode."""

    def __init__(self, policy: Any) -> None:
        self._policy, self.renderer = policy, getattr(policy, "renderer", None)
        self.of: dict[str, list[tuple[str, Completion]]] = defaultdict(list)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        done: list[Completion] = self._policy.generate(prompts, sampling)
        for prompt, completion in zip(prompts, done, strict=True):
            assert prompt.task
            self.of[prompt.task.id].append((str(prompt.messages[-1]["content"]), completion))
        return done


def task(name: str, calls: int, doom: str = "") -> dict[str, Any]:
    """A row of the environment."""
    return {"id": name, "question": json.dumps({"calls": calls, "doom": doom}), "answer": "", "doom": doom}


def faults_of(row: dict[str, Any], played: Trajectory, kept: KeptCalls) -> list[str]:
    """What is wrong with an episode; nothing should be."""
    if row["doom"]:
        return [f"{row['doom']}, yet scored"] if played.score.value is not None else []
    if played.score.value is None:
        return [str(played.score.evidence)]
    calls = json.loads(row["question"])["calls"]
    asked, gave = zip(*kept.of[row["id"]], strict=True)
    said = json.dumps(sorted(completion.text for completion in gave)).encode()
    held = {
        "a call was lost": {*asked} == {f"call {n}" for n in range(calls)},
        "a call was made twice": len(asked) == played.turns == calls,
        "an answer is not what was sampled": played.score.evidence["output"].strip()
        == blake2b(said, digest_size=8).hexdigest(),
        "trained otherwise than sampled": not kept.renderer
        or sorted(trained_runs(played)) == sorted(list(one.token_ids) for one in gave),
    }
    return [fault for fault, fine in held.items() if not fine]


def trained_runs(played: Trajectory) -> list[list[int]]:
    """The runs of trained tokens, in the order of the segments."""
    found = []
    for segment in played.segments:
        pairs = zip(segment.token_ids, segment.loss_mask, strict=True)
        found += [[t for t, _ in run] for trained, run in groupby(pairs, key=lambda pair: pair[1]) if trained]
    return found
