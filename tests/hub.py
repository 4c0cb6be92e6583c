"""A Hugging Face hub for tests: a cache as huggingface_hub lays it out, and a server that has models."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put(cache: Path, repo: str, model: Path, *, ref: str = "main", commit: str = COMMIT) -> Path:
    """The snapshot of `model` in a cache: links into blobs, and a ref that names the commit."""
    place = cache / f"models--{repo.replace('/', '--')}"
    snapshot = place / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (place / "blobs").mkdir(exist_ok=True)
    for file in model.iterdir():
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / ref).write_text(commit)
    return snapshot


@contextmanager
def hub(repo: str, model: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that has one model, and what was asked of it."""
    asked: list[str] = []
    files = {file.name: file.read_bytes() for file in model.iterdir()}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if path.startswith(f"/api/models/{repo}/revision/"):
                self._json({"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
            elif path.startswith(f"/api/models/{repo}/tree/"):
                self._json(
                    [{"type": "file", "path": n, "size": len(d), "oid": _oid(d)} for n, d in files.items()]
                )
            elif path.startswith(f"/{repo}/resolve/{COMMIT}/") and name in files:
                self._bytes(files[name], {"ETag": f'"{_oid(files[name])}"', "X-Repo-Commit": COMMIT})
            else:
                self._bytes(b"", {"X-Error-Code": "RepoNotFound"}, status=404)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

        def _json(self, value: object) -> None:
            self._bytes(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _bytes(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # what git calls a blob; no secret
