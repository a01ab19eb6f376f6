"""A real MLflow server that can be killed, frozen and started again, and one in front of it that misbehaves."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_START_S = 120.0


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Server:
    """`mlflow server` on the loopback with its store in a folder; the same port and store each time it is started."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.uri, self.store = f"http://127.0.0.1:{self.port}", f"sqlite:///{folder / 'mlflow.db'}"
        self._process = None

    def start(self):
        """Start it, and wait until it answers."""
        command = [sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        command += ["--port", str(self.port), "--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self.folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **quick}, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)

    def send(self, number):
        """Send a signal to all its processes."""
        os.killpg(self._process.pid, number)

    def kill(self):
        """End it as a crash would; nothing if it is not running."""
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def frozen(self):
        """All its processes stand still: connections are taken, and never answered."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    def _answers(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5.0) as answer:
                return answer.status == 200
        except OSError:
            return False


class Front:
    """A server that hands on to another what it is asked.

    Attributes:
        delay: seconds before each answer.
        status: answered instead of handing on; None to hand on.
    """

    def __init__(self, port):
        front = self
        self.delay, self.status = 0.0, None

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(front.delay)
                status, answer, kind = front.status, b"{}", "application/json"
                if status is None:
                    behind = http.client.HTTPConnection("127.0.0.1", port, timeout=60.0)
                    behind.request(self.command, self.path, body, {"Content-Type": kind})
                    with contextlib.closing(behind), behind.getresponse() as got:
                        status, answer, kind = got.status, got.read(), got.headers["Content-Type"] or kind
                with contextlib.suppress(OSError):  # whoever asked may be gone
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_PUT = _answer

            def log_message(self, *words):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # a client that was killed

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
