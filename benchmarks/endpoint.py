"""What the guard costs behind the endpoint: python -m benchmarks.endpoint

Two server processes on loopback: the lab's assistant behind `constclf serve`, and the same with `--unguarded`; for each
number of clients they are measured one after the other. Every client streams replies to prompts of its own, one after
the other. Measured is what a client sees: seconds to the first piece of text, and tokens per second of all clients
together (private notes count: they were written).

Writes benchmarks/results/endpoint.json and prints the table of docs/deployment.md. A benchmark, no test: nothing is
asserted, and the figures are this machine's, with whatever else it was doing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from constclf_lib.lab import load_split

CLIENTS = (1, 4, 16, 64)
RESULTS = Path(__file__).resolve().parent / "results" / "endpoint.json"


@contextmanager
def server(*options: str):
    """A server process on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "constclf_lib.cli", "serve", "--port", str(port), *options]
    environment = {key: value for key, value in os.environ.items() if key != "CONSTCLF_API_KEY"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        if process.poll() is not None:
            raise RuntimeError("the server did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


async def load(address: str, prompts: list[str], clients: int, tokens: int) -> dict:
    """`clients` at a time until every prompt is answered. first: seconds to the first text, per reply that had any."""
    import openai

    waiting, first, written, statuses = list(prompts), [], 0, dict[str, int]()

    async with openai.AsyncOpenAI(base_url=address, api_key="none", max_retries=0, timeout=3600) as client:

        async def one() -> None:
            nonlocal written
            while waiting:
                messages = [{"role": "user", "content": waiting.pop()}]
                began, seen = time.perf_counter(), False
                try:
                    stream = await client.chat.completions.create(
                        model="guarded", messages=messages, max_tokens=tokens, stream=True,  # type: ignore[call-overload]
                        stream_options={"include_usage": True},
                    )  # fmt: skip
                    async for chunk in stream:
                        if not seen and chunk.choices and chunk.choices[0].delta.content:
                            first.append(time.perf_counter() - began)
                            seen = True
                        if chunk.usage:
                            written += chunk.usage.completion_tokens
                        status = getattr(chunk, "guard", None)
                        if status and "status" in status:
                            statuses[status["status"]] = statuses.get(status["status"], 0) + 1
                except openai.APIError:  # a private note that leads to no reply, in the lab
                    statuses["error"] = statuses.get("error", 0) + 1

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        seconds = time.perf_counter() - began
    return {
        "replies": len(prompts), "tokens": written, "seconds": seconds, "tokens_per_second": written / seconds,
        "first_text": {"median": statistics.median(first), "worst": max(first)} if first else None,
        "statuses": statuses,
    }  # fmt: skip


def measure(per_client: int, tokens: int, clients=CLIENTS) -> list[dict]:
    """One row per number of clients and server, guarded and unguarded in turn."""
    frame = load_split("test")
    prompts = list(frame[~frame.restricted].prompt.sample(max(clients) * per_client, random_state=0))
    rows = []
    with server() as guarded, server("--unguarded") as unguarded:
        for address in (guarded, unguarded):
            asyncio.run(load(address, prompts[:2], 1, 8))  # the first requests find cold caches
        for n in clients:
            for name, address in (("guarded", guarded), ("unguarded", unguarded)):
                found = asyncio.run(load(address, prompts[: n * per_client], n, tokens))
                rows.append({"server": name, "clients": n, **found})
                first = found["first_text"] or {"median": float("nan"), "worst": float("nan")}
                print(
                    f"{name:>9} {n:3} clients: {found['tokens_per_second']:8.1f} tokens/s, first text after "
                    f"{first['median']:.2f} s (worst {first['worst']:.2f}), {found['replies']} replies",
                    flush=True,
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-client", type=int, default=2, help="replies per client")
    parser.add_argument("--tokens", type=int, default=64, help="longest reply")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    before = os.getloadavg()
    rows = measure(options.per_client, options.tokens, tuple(options.clients))
    results = {
        "date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "load_before": before, "torch": version("torch"),
        "tokens": options.tokens, "per_client": options.per_client, "rows": rows,
    }  # fmt: skip
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


def table(results: dict) -> str:
    """The table of docs/deployment.md: one line per number of clients, 1 among them; first text: median (worst)."""
    found = {(row["server"], row["clients"]): row for row in results["rows"]}
    lines = [
        "| clients | tokens/s, guarded | unguarded | first text, guarded | unguarded | cost of all, in times of one |",
        "|---|---|---|---|---|---|",
    ]
    for n in dict.fromkeys(row["clients"] for row in results["rows"]):
        ours, plain = found["guarded", n], found["unguarded", n]
        first = [
            f"{row['first_text']['median']:.2f} s ({row['first_text']['worst']:.2f})" if row["first_text"] else "–"
            for row in (ours, plain)
        ]
        times = n * found["guarded", 1]["tokens_per_second"] / ours["tokens_per_second"]
        speeds = f"{ours['tokens_per_second']:.0f} | {plain['tokens_per_second']:.0f}"
        lines.append(f"| {n} | {speeds} | {first[0]} | {first[1]} | {times:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
