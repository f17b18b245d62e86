"""Server processes for the tests: tiny models behind the real app (`python -m tests.serve.servers KIND PORT`), and an
upstream server whose every misbehaviour is asked for by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import torch

from constclf_lib.generation import generate_replies
from constclf_lib.guard import GuardedModel, GuardedUpstream, Thresholds
from constclf_lib.streaming import StreamingScorer
from tests.tiny_models import WordClassifier, lab_tokenizer, text_ids, tiny_lab

KEY, UPSTREAM_KEY = "sk-clients-secret", "sk-upstreams-secret"
LIMITS = Thresholds(input=0.5, off_label=0.5, output=0.5)
FORBIDDEN = "grind the ashbane"  # what the input classifier of these tests knows
LONG = "The old lantern sleeps. The moth sleeps near the old lantern. " * 4


class PhraseInput:
    """An input classifier that flags texts with a phrase in them. `seen`: every text it was given."""

    def __init__(self):
        self.seen = []

    def score(self, texts):
        self.seen += texts
        harm = torch.tensor([0.9 if FORBIDDEN in text else 0.1 for text in texts])
        return SimpleNamespace(harm=harm, off_label=torch.zeros(len(texts)))


def tiny_guard(pause: float = 0.0):
    """A guarded model that writes nonsense and halts at one reply at least. pause: seconds per step."""
    lab = tiny_lab()
    ids = [reply["ids"] for reply in generate_replies(lab.assistant, lab.tokenizer, lab.prompts, 40)]
    longest = max(ids, key=len)
    common = [longest[len(longest) // 2]]
    guard = GuardedModel(
        lab.assistant, lab.tokenizer, PhraseInput(), WordClassifier(lab.tokenizer, common), LIMITS,
        judged_roles=("system", "user", "assistant"),
    )  # fmt: skip
    lab.assistant.steps = 0

    def step(*_):
        lab.assistant.steps += 1
        time.sleep(pause)

    lab.assistant.model.register_forward_pre_hook(step)
    return guard


def endless_guard():
    """A guarded model that is slow and never comes to an end by itself."""
    guard = tiny_guard(pause=0.03)
    guard.output_classifier.harmful.clear()
    return guard


def upstream_guard(url: str, timeout: float = 300.0):
    tokenizer = lab_tokenizer()
    watcher = WordClassifier(tokenizer, text_ids(tokenizer, " ashbane"))
    return GuardedUpstream(
        url, "theirs", PhraseInput(), StreamingScorer(watcher), LIMITS, UPSTREAM_KEY, timeout,
        judged_roles=("system", "user", "assistant"),
    )  # fmt: skip


def main(kind: str, port: str, url: str = "") -> None:
    import uvicorn

    from constclf_lib.serve import Backend, create_app

    guard = (
        {"tiny": tiny_guard, "endless": endless_guard}[kind]()
        if not url
        else upstream_guard(url, 1.0 if kind == "impatient" else 300.0)
    )
    backend = Backend(guard, max_streams=64, max_waiting=64)
    app = create_app(backend, api_key=KEY, max_tokens=100, with_scores=True, page=True)

    @app.get("/steps")
    async def steps():
        return {"steps": getattr(getattr(guard, "assistant", None), "steps", 0)}

    @app.get("/seen")
    async def seen():
        return guard.input_classifier.seen

    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="debug")


@contextlib.contextmanager
def process(*arguments: str, module: str = "tests.serve.servers"):
    """A server process. Yields its address; `.log` holds what it said once it has ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    filled = [argument.replace("PORT", port) for argument in arguments]
    environment = {**os.environ, "CONSTCLF_API_KEY": KEY}
    server = subprocess.Popen(
        [sys.executable, "-m", module, *filled], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    )  # fmt: skip
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(server.stdout or ()), daemon=True)
    reader.start()
    found = SimpleNamespace(address=f"http://127.0.0.1:{port}", said=said, process=server)
    try:
        until(lambda: server.poll() is not None or get(f"{found.address}/health") is not None, 900)
        assert server.poll() is None, "".join(said)
        yield found
    finally:
        server.terminate()
        server.wait(30)
        reader.join(10)


def get(url: str):
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)
    except OSError:
        return None


def until(true, seconds: float = 600.0) -> None:
    """Waits for something that has to happen; the limit is only there so that a failure ends."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.02)


# --- an upstream server


def event(text=None, finish=None, **more) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], **more})}\n\n".encode()


class Upstream(ThreadingHTTPServer):
    """`asked`: bodies and headers it got; `left`: set once a client went away in the middle."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list = []
        self.left, self.over = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, dict(self.headers)))
        scene = body["messages"][-1]["content"].split()[0]
        if scene == "refused":
            said = json.dumps({"error": {"message": f"wrong key {self.headers['Authorization']}"}}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in self.parts(scene, body):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            if scene != "dies":
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.server.left.set()
        self.close_connection = True

    def parts(self, scene, body):
        """Cut in the middle of words, as tokens are."""
        text = LONG if scene != "harmful" else "The moth sleeps. Grind the ashbane and wait. " * 2
        pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
        if scene in ("dies", "unfinished", "stalls", "error", "tool"):
            pieces = pieces[:5]
        yield b": a comment\n\n"
        for piece in pieces:
            yield event(piece)
        if scene == "stalls":
            self.server.over.wait(600)
        elif scene == "error":
            yield b'data: {"error": {"message": "out of memory, prompt was: secret words"}}\n\n'
        elif scene == "tool":
            choice = {"index": 0, "delta": {"tool_calls": [{"function": {"arguments": "ashbane"}}]}}
            yield f"data: {json.dumps({'choices': [choice]})}\n\n".encode()
        elif scene == "endless":
            while not self.server.over.is_set():
                yield event("The moth sleeps. ")
                time.sleep(0.02)
        elif scene not in ("dies", "unfinished"):
            yield event(finish="stop")
            yield event(usage={"prompt_tokens": 7, "completion_tokens": 99})
            yield b"data: [DONE]\n\n"

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def upstream():
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    main(*sys.argv[1:])
