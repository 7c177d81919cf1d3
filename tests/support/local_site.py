"""A local web server with range requests, broken connections, redirects, error pages and missing files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><body>This bucket has moved</body></html>"


@dataclass
class Site:
    """The files of the server, and the requests that it has received."""

    files: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)  # sent as text/html with status 200
    breaks_after: dict[str, list[int]] = field(default_factory=dict)  # bytes per request until the connection breaks
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # per file, such as ETag; the default has one
    ignores_ranges: bool = False
    ignores_conditions: bool = False  # If-Range, as some proxies do
    ranges: list[str | None] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    url: str = ""

    def validators(self, name: str) -> dict[str, str]:
        """The headers that identify the version of a file: those in ``headers``, or a strong ETag."""
        return self.headers.get(name, {"ETag": f'"{hashlib.sha256(self.files[name]).hexdigest()}"'})


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        requested = self.headers.get("Range")
        self.site.ranges.append(requested)
        self.site.requested.append(name)
        self.site.authorizations.append(self.headers.get("Authorization"))
        if name in self.site.redirects:
            self.answer(302, b"", {"Location": f"{self.site.url}/{self.site.redirects[name]}"})
        elif name in self.site.pages:
            self.answer(200, self.site.pages[name], {"Content-Type": "text/html; charset=utf-8"})
        elif name not in self.site.files:
            self.answer(404, PAGE, {"Content-Type": "text/html"})
        elif requested and not self.site.ignores_ranges and self.is_current(name):
            self.send_range(self.site.files[name], int(requested.removeprefix("bytes=").rstrip("-")), name)
        else:
            headers = {"Content-Type": "application/x-tar", **self.site.validators(name)}
            self.answer(200, self.site.files[name], headers, name)

    def is_current(self, name: str) -> bool:
        """Whether the condition of the request, if there is one, is the version of the file."""
        condition = self.headers.get("If-Range")
        validators = self.site.validators(name)
        return condition is None or self.site.ignores_conditions or condition in validators.values()

    def send_range(self, content: bytes, start: int, name: str) -> None:
        if start >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        else:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], {"Content-Range": span, **self.site.validators(name)}, name)

    def answer(self, status: int, body: bytes, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        cuts = self.site.breaks_after.get(name)
        self.wfile.write(body[: cuts.pop(0)] if cuts else body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Site]:
    """Run a server inside the block."""
    served = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": served}))
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
