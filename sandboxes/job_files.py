"""The descriptors of one job: made fresh for it, passed to the fork-server, read when it is over, closed.

Payload, stdin, stdout, stderr and results are memory files. A flood is capped by the file size limit, nothing
has to be drained while the job runs, and nothing of it outlives the job. Also used by the relay in a
container: standard library only.
"""

import os
import socket
from collections.abc import Sequence


class JobFiles:
    """One job's descriptors; `passed` is what the fork-server expects, in its order."""

    def __init__(self, payloads: Sequence[bytes], stdin: bytes, null: int) -> None:
        self._made: list[int] = []
        self._results: list[int] = []
        try:
            program = [self._file(stdin) if stdin else null, self._file(), self._file()]
            self._outputs = program[1:]
            self.passed = program + self._payload_and_result(payloads[0])
            if len(payloads) == 2:
                channel = [end.detach() for end in socket.socketpair()]
                self._made += channel
                self.passed += [channel[0], *self._payload_and_result(payloads[1]), channel[1]]
        except BaseException:
            self.close()
            raise

    def handed_over(self) -> None:
        """Once passed, only the outputs are kept open; a channel must end when its children do."""
        kept = {*self._outputs, *self._results}
        for descriptor in self._made:
            if descriptor not in kept:
                os.close(descriptor)
        self._made = [*self._outputs, *self._results]

    def read(self, output_bytes: int, result_bytes: int) -> tuple[bytes, bytes, list[bytes]]:
        """(stdout, stderr, results), each cut one byte beyond its limit, so that a cut shows."""
        stdout, stderr = (os.pread(output, output_bytes + 1, 0) for output in self._outputs)
        return stdout, stderr, [os.pread(result, result_bytes + 1, 0) for result in self._results]

    def close(self) -> None:
        """Close what is open."""
        for descriptor in self._made:
            os.close(descriptor)
        self._made = []

    def _payload_and_result(self, payload: bytes) -> list[int]:
        given, result = self._file(payload), self._file()
        self._results.append(result)
        return [given, result]

    def _file(self, content: bytes = b"") -> int:
        made = os.memfd_create("job")
        self._made.append(made)
        if content:
            os.truncate(made, len(content))
            written = 0
            while written < len(content):
                written += os.pwrite(made, content[written:], written)
        return made
