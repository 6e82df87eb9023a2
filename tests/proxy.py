"""A proxy that takes a prefix off the path, as nginx does, and knows nothing outside that prefix."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

HOP = ("connection", "transfer-encoding", "keep-alive", "host", "content-length")


@contextmanager
def behind_prefix(prefix: str, behind: str) -> Iterator[str]:
    """The address of `behind`, under the prefix."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404, "outside the prefix")
                return
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
            answer = httpx.request(
                self.command, f"{behind}{self.path.removeprefix(prefix)}", headers=headers, content=content
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in (*HOP, "content-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815 -- http.server's name

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}{prefix}"
        finally:
            listening.shutdown()
            thread.join()
