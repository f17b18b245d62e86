"""Writers: the grammar knows the truth, a causal LM is asked in its own form, a real server on loopback is asked."""

import dataclasses
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TextGenerationPipeline

from constclf_lib import data_path
from constclf_lib.lab import judge, lab_tokenizer, system_prompt
from constclf_lib.lab.writers import (
    GrammarWriter,
    HuggingFaceWriter,
    OpenAIWriter,
    Request,
    WriterError,
    requests_for,
    to_frame,
)
from constclf_lib.prompts import ASSISTANT, END, USER, chat_id
from constclf_lib.tokenization import text_ids
from tests.lab.scripted_writer import AID, LAWS, good


def test_the_grammar_writes_both_halves_with_their_truth():
    requests = requests_for(LAWS, each=2)
    writer = GrammarWriter(seed=3)
    frame = to_frame(writer.write(requests))
    assert frame.rule_id.tolist() == [r.rule.id for r in requests]
    assert [h for h, r in zip(frame.hazard, requests, strict=True) if r.hazard] == [
        r.hazard for r in requests if r.hazard
    ]
    assert not frame.duplicated(["prompt", "completion"]).any()
    for row in frame.itertuples():
        truth = judge(row.completion)
        assert (truth.harmful, truth.onset) == (row.harmful, row.onset) and row.restricted == row.harmful
        assert len(row.facts) == 5 and row.restricted == LAWS[row.rule_id].restricted
    assert GrammarWriter(seed=3).write(requests) == GrammarWriter(seed=3).write(requests)
    assert GrammarWriter(seed=4).write(requests) != GrammarWriter(seed=3).write(requests)


def test_the_grammar_says_what_it_does_not_know():
    stranger = dataclasses.replace(AID.rule, id="stranger")
    with pytest.raises(WriterError, match="knows nothing about the rule 'stranger'"):
        GrammarWriter().write([Request(stranger, "ashbane")])


def test_requests_for_some_rules():
    assert requests_for(LAWS, 2, ["produce"])[::2] == [Request(LAWS["produce"], h) for h in LAWS["produce"].hazards]
    assert requests_for(LAWS, 1, ["cooking"]) == [Request(LAWS["cooking"], "")]
    assert {r.rule.id for r in requests_for(LAWS)} == {rule.id for rule in LAWS.rules}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny Llama with the lab's tokenizer that has learnt by heart what an answer looks like; its folder."""
    torch.manual_seed(0)
    tokenizer = lab_tokenizer(data_path())
    tokenizer.chat_template = (
        "{{ '<|user|>' + messages[-1]['content'] }}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    end, start = chat_id(tokenizer, END), [chat_id(tokenizer, USER)]
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), eos_token_id=end, pad_token_id=end, bos_token_id=None, **shape)
    )
    answers = [good(i).replace("arm", "leg") for i in range(6)] + ["I would rather not."] * 2
    rows = []
    for i, answer in enumerate(answers):
        question = [*start, *text_ids(tokenizer, f"Write exchange number {i}."), chat_id(tokenizer, ASSISTANT)]
        rows.append(question + text_ids(tokenizer, answer) + [end])
    longest = max(map(len, rows))
    ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(90):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    model.generation_config.do_sample = True
    folder = tmp_path_factory.mktemp("models") / "taught"
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_folder(folder):
    return HuggingFaceWriter(folder, max_tokens=120, progress=False, tries=20)


def by_pipeline(folder):
    loaded = by_folder(folder)
    pipeline = TextGenerationPipeline(model=loaded.model, tokenizer=loaded.tokenizer)
    return HuggingFaceWriter(pipeline, max_tokens=120, progress=False, tries=20)


@pytest.mark.parametrize("make", [by_folder, by_pipeline])
def test_a_causal_lm_writes(taught, make):
    state = torch.get_rng_state()
    writer = make(taught)
    found = writer.write([AID] * 3)
    assert len(found) == 3 and len({e.prompt for e in found}) == 3 and writer.name == "taught"
    assert all("ashbane" in e.prompt and e.completion.startswith("Case") for e in found)
    assert writer.thrown_away.total() == len(writer.log) - 3
    assert torch.equal(state, torch.get_rng_state())
    assert make(taught).write([AID] * 3) == found


def test_an_untrained_lm_is_given_up_and_counted(taught):
    writer = by_folder(taught)
    writer.tries, writer.max_tokens, writer.batch = 2, 8, 3
    assert writer.write([AID] * 3) == [] and writer.given_up == {"first_aid": 3}
    assert writer.thrown_away == {"cut off": 6}


def test_without_a_chat_template_the_rule_is_read_as_text(taught):
    writer = by_folder(taught)
    writer.tokenizer.chat_template = None
    rule = dataclasses.replace(AID.rule, text="Obey <|assistant|> and <|end|>.")
    ids = writer._ids(Request(rule, "ashbane"), 5)
    assert not set(ids) & set(writer.tokenizer.all_special_ids)
    assert writer.tokenizer.decode(ids).endswith("Write exchange number 5.\n\nPROMPT:")
    (answer,) = writer.ask([AID], 0)
    assert answer.text.startswith("PROMPT:")


def test_a_template_without_a_system_role_gets_one_message(taught):
    writer = by_folder(taught)
    writer.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ '<|user|>' + m['content'] }}{% endfor %}"
    )
    text = writer.tokenizer.decode(writer._ids(AID, 7))
    assert text.count("<|user|>") == 1 and AID.rule.text in text and "number 7." in text


def test_a_model_needs_its_tokenizer():
    with pytest.raises(WriterError, match="tokenizer"):
        HuggingFaceWriter(torch.nn.Linear(1, 1))


@pytest.fixture
def server(monkeypatch):
    """A small server on loopback; `.script`: (status, finish_reason, text) for one call after the other."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with self.server.lock:
                self.server.calls.append((self.path, self.headers["authorization"], body))
                status, finish, text = self.server.script.pop(0)
            if status == "drop":
                self.connection.close()
                return
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": finish}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
            content = json.dumps(reply if status == 200 else {"error": {"message": text}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.lock, httpd.calls, httpd.script = threading.Lock(), [], []
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/v1"
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def writer_for(server, path=None, retries=0, **options):
    client = openai.OpenAI(base_url=server.url, api_key="secret", max_retries=retries)
    return OpenAIWriter("big", client=client, path=path, progress=False, **{"batch": 1, **options})


def test_a_server_is_asked_in_the_protocol(server):
    server.script = [(200, "stop", good(0)), (200, "stop", good(1))]
    found = writer_for(server, temperature=0.7, max_tokens=99, seed=5, request={"top_p": 0.9}).write([AID] * 2)
    assert len(found) == 2 and found[0].plan == "writer/big"
    (path, key, first), (_, _, second) = server.calls
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert (first["model"], first["temperature"], first["max_tokens"], first["top_p"]) == ("big", 0.7, 99, 0.9)
    assert first["messages"][0] == {"role": "system", "content": system_prompt(AID.rule, "ashbane")}
    assert first["messages"][1] != second["messages"][1] and first["seed"] != second["seed"]


def test_what_a_server_will_not_say_is_counted(server):
    server.script = [
        (200, "length", good(0)),
        (200, "content_filter", good(0)),
        (400, "", "our policy"),
        (200, "stop", None),
        (422, "", "too long"),
        (200, "stop", good(0)),
    ]
    writer = writer_for(server, tries=6)
    assert len(writer.write([AID])) == 1
    assert writer.thrown_away == {"cut off": 1, "declined by the server": 3, "no PROMPT: and COMPLETION:": 1}


def test_a_busy_server_is_tried_again(server, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01, raising=False)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01, raising=False)
    server.script = [(429, "", "busy"), (503, "", "busy"), (200, "stop", good(0))]
    writer = writer_for(server, retries=2)
    assert len(writer.write([AID])) == 1 and not writer.thrown_away


@pytest.mark.parametrize("trouble", [(500, "", "broken"), (401, "", "who are you"), ("drop", "", "")])
def test_a_failing_server_stops_the_run_and_loses_nothing(server, tmp_path, trouble):
    path = tmp_path / "answers.jsonl"
    server.script = [(200, "stop", good(0)), trouble]
    with pytest.raises(WriterError, match=r"1 answers are kept in .*answers.jsonl; call write again"):
        writer_for(server, path).write([AID] * 2)
    server.script = [(200, "stop", good(1))]
    assert len(writer_for(server, path).write([AID] * 2)) == 2 and len(server.calls) == 3


def test_one_failure_in_a_batch_keeps_the_answers_of_the_others(server):
    server.script = [(200, "stop", good(0)), (500, "", "broken"), (200, "stop", good(1))]
    writer = writer_for(server, batch=3)
    with pytest.raises(WriterError, match="2 answers are kept"):
        writer.write([AID] * 3)
    server.script = [(200, "stop", good(2))]
    assert len(writer.write([AID] * 3)) == 3


def test_a_local_server_needs_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert OpenAIWriter("m", base_url="http://127.0.0.1:1/v1").client.api_key
    with pytest.raises(openai.OpenAIError, match="api_key|credentials"):
        OpenAIWriter("m")


MISSING = [name for name in ("fastapi", "uvicorn", "pydantic") if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"`transformers serve` needs {', '.join(MISSING)} (requirements-dev.txt)")
def test_a_real_server_writes(taught, tmp_path, monkeypatch):
    """`transformers serve` with the tiny model, asked over HTTP by the openai client.

    It goes away in the middle; a new writer goes on from the file.
    """
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    path, requests = tmp_path / "answers.jsonl", [AID] * 3

    def writer(url, retries=2):
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=retries)
        return OpenAIWriter(str(taught), client=client, path=path, batch=2, max_tokens=120, tries=20, progress=False)

    with serving(taught, tmp_path) as url:
        first = writer(url).write(requests[:1])
        with pytest.raises(WriterError, match="call write again"):
            writer("http://127.0.0.1:9/v1", retries=0).write(requests)
        second = writer(url)
        found = second.write(requests)
    assert found[:1] == first and len(found) == 3
    assert len({e.prompt for e in found}) == 3 and all("ashbane" in e.prompt for e in found)
    assert second.thrown_away.total() <= len(second.log) - 3


class serving:
    """`transformers serve` in a process of its own, on a free port of this machine, for the length of a with block."""

    def __init__(self, model, folder):
        self.model, self.log = str(model), folder / "serve.log"

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        start = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
        options = [self.model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", start, "serve", *options], stdout=log, stderr=log, env=quiet
            )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(1200):
            if self.process.poll() is not None:
                pytest.fail(f"transformers serve ended: {self.log.read_text(errors='replace')[-2000:]}")
            try:
                with opener.open(f"http://127.0.0.1:{port}/health", timeout=5):
                    return f"http://127.0.0.1:{port}/v1"
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        pytest.fail("transformers serve did not come up in two minutes")

    def __exit__(self, *error):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
