"""A server on this machine that behaves like those that papers publish files on, badly where a test asks for it."""

import hashlib
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""What the server calls the version of every hub repository."""


@dataclass
class Site:
    """Hold what the server offers, how it misbehaves, and what it was asked."""

    url: str
    # "/path" -> content.
    files: dict[str, bytes] = field(default_factory=dict)
    # "/path" -> a file with the content, for what is large. That of a hub repository is at /org/name/resolve/main/FILE.
    large: dict[str, Path] = field(default_factory=dict)
    # "GET /path", or with its range "GET /path bytes=100-".
    requests: list[str] = field(default_factory=list)
    # "/path" -> where it sends whoever asks for it.
    redirects: dict[str, str] = field(default_factory=dict)
    # Bytes after which each transfer breaks off.
    cut_at: int | None = None
    # Whether the first 20 bytes arrive one by one, in a second.
    slow: bool = False
    # Whether it answers a request for a part with the whole.
    ignores_ranges: bool = False
    # Whether it says how long its answers are.
    states_length: bool = True
    # Status of every answer.
    status: int | None = None


@contextmanager
def serving() -> Iterator[Site]:
    """Run a server on a free port of 127.0.0.1."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.requests.append(" ".join(filter(None, (self.command, self.path, asked))))
            if target := site.redirects.get(self.path):
                self.send_response(302)
                self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = site.files.get(self.path, site.large.get(self.path))
            if site.status:
                self.send_error(site.status)
                return
            if content is None:
                self.send_response(404)
                # So the hub says that it is the file that is missing.
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            length = content.stat().st_size if isinstance(content, Path) else len(content)
            match = None if site.ignores_ranges else re.fullmatch(r"bytes=(\d+)-", asked or "")
            start = int(match[1]) if match else 0
            if match and start >= length:
                self.send_error(416)
                return
            self.send_response(206 if match else 200)
            if match:
                self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
            if site.states_length:
                self.send_header("Content-Length", str(length - start))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(self.path.encode()).hexdigest()}"')
            self.end_headers()
            if self.command == "HEAD":
                return
            if isinstance(content, Path):
                with content.open("rb") as stream:
                    stream.seek(start)
                    shutil.copyfileobj(stream, self.wfile, 2**20)
                return
            end = length if site.cut_at is None else min(length, start + site.cut_at)
            for _ in range(20 if site.slow else 0):
                threading.Event().wait(0.05)
                self.wfile.write(content[start : start + 1])
                self.wfile.flush()
                start += 1
            self.wfile.write(content[start:end])
            self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
