"""A Hugging Face Hub in one file: the real client talks to it, no network needed."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """Creates repositories, takes commits and serves files, from the server's `folder`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            self.answer({"url": f"{self.base()}/owner/{name}", "name": f"owner/{name}"})
        elif "/preupload/" in self.path:
            files = [{**f, "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self.answer({"files": [{"shouldIgnore": False, "oid": None, **f} for f in files]})
        elif "/commit/" in self.path:
            repo = self.server.folder / self.path.split("/commit/")[0].removeprefix("/api/models/")
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    target = repo / line["value"]["path"]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(base64.b64decode(line["value"]["content"]))
            url = f"{self.base()}/owner/{repo.name}/commit/{COMMIT}"
            self.answer({"commitUrl": url, "commitOid": COMMIT, "success": True})
        else:
            self.answer({"valid": True})  # a check of the model card

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        file = self.server.folder / repo / rest.partition("/")[2]
        if not rest or not file.is_file():
            known = (self.server.folder / repo).is_dir()
            self.answer({}, 404, "EntryNotFound" if known else "RepoNotFound")
        else:
            self.send(file.read_bytes())

    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, value: object, status: int = 200, error: str | None = None) -> None:
        self.send(json.dumps(value).encode(), status, error)

    def send(self, data: bytes, status: int = 200, error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def hub_server(folder: Path) -> Iterator[str]:
    """Serves repositories under `folder`; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder = folder
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
