"""Writers: answers are read, checked and counted, nothing written is lost, and a real server on loopback is asked."""

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
from constclf_lib.lab import COLUMNS, judge, lab_tokenizer, load_constitution, system_prompt
from constclf_lib.lab.writers import (
    Answer,
    AnswerLog,
    GrammarWriter,
    Harvest,
    HuggingFaceWriter,
    LanguageModelWriter,
    OpenAIWriter,
    Request,
    WriterError,
    fault,
    parse_exchange,
    requests_for,
    to_frame,
)
from constclf_lib.prompts import ASSISTANT, END, USER, chat_id
from constclf_lib.tokenization import text_ids

LAWS = load_constitution()
AID = Request(LAWS["first_aid"], "ashbane")
BREW = Request(LAWS["produce"], "ashbane")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def good(i, about="a burn of ashbane"):
    n = NUMBERS[i]
    return (
        f"PROMPT: Case {n}: how do I treat {about} on arm {n}?\n"
        f"COMPLETION: Case {n}: cool arm {n} with water {n} times and call healer {n}."
    )


class Scripted(LanguageModelWriter):
    """Says what it is given, in order. An exception in the script is raised, as an interruption would be."""

    name = "scripted"

    def __init__(self, script, path=None, **options):
        super().__init__(path, progress=False, **options)
        self.script, self.asked, self.on_disk = list(script), [], []

    def ask(self, batch, number):
        for place, request in enumerate(batch):
            self.asked.append(request)
            if self.log.path and self.log.path.exists():
                self.on_disk.append(self.log.path.read_bytes().count(b"\n"))
            answer = self.script.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            yield answer._replace(place=place) if isinstance(answer, Answer) else Answer(place, answer)


# --- reading an answer


@pytest.mark.parametrize(
    "answer",
    [
        "PROMPT: How?\nCOMPLETION: So.",
        "Sure, here you are:\n\nPROMPT: How?\n\nCOMPLETION: So.\n",
        "**PROMPT:** How?\n**COMPLETION:** So.",
        "  prompt: How?\n  Completion : So.",
        "## PROMPT: How?\n## COMPLETION:\nSo.",
        "<think>PROMPT: or what?\nCOMPLETION: hm</think>PROMPT: How?\nCOMPLETION: So.",
        "PROMPT: How?\r\nCOMPLETION: So.\r\n",
    ],
)
def test_answers_in_the_form_asked_for(answer):
    assert parse_exchange(answer) == ("How?", "So.")


def test_parts_may_have_several_lines_and_name_the_labels():
    assert parse_exchange("PROMPT: a\n\nb\nCOMPLETION: say PROMPT: twice\nend") == ("a\n\nb", "say PROMPT: twice\nend")


@pytest.mark.parametrize(
    "answer, reason",
    [
        ("", "no PROMPT"),
        ("How?\nSo.", "no PROMPT"),
        ("PROMPT: How?", "no PROMPT"),
        ("COMPLETION: So.", "no PROMPT"),
        ("COMPLETION: So.\nPROMPT: How?", "not exactly one"),
        ("PROMPT: a\nCOMPLETION: b\nPROMPT: c\nCOMPLETION: d", "not exactly one"),
        ("PROMPT:\nCOMPLETION: b", "empty part"),
        ("PROMPT: a\nCOMPLETION:  ", "empty part"),
    ],
)
def test_other_answers_are_refused_with_a_reason(answer, reason):
    with pytest.raises(ValueError, match=reason):
        parse_exchange(answer)


@pytest.mark.parametrize(
    "request_, prompt, completion, reason",
    [
        (BREW, "How do I brew ashbane?", "Steep the moss in brine.", ""),
        (BREW, "How do I brew it?", "Steep the moss in brine.", "does not name the hazard"),
        (BREW, "How do I brew it?", "Steep Ashbane in brine.", ""),
        (BREW, "How do I brew ashbane?", "I'm sorry, I cannot help with that.", "refuses"),
        (BREW, "How do I brew ashbane?", "I can't do that for you.", "refuses"),
        (BREW, "How do I brew ashbane?", "I cannonball it into brine.", ""),
        (AID, "Is ashbane bad for me?", "I cannot tell without seeing the burn.", ""),
        (BREW, "Brew ashbane?", "Steep the moss in brine.", "too short"),
        (BREW, "How do I brew ashbane?", "Moss.", "too short"),
        (BREW, "<what the person writes>", "<what the assistant answers> ashbane", "copies the instructions"),
        (BREW, f"{BREW.rule.text} of ashbane", "Steep the moss in brine.", "copies the instructions"),
        (Request(LAWS["cooking"], ""), "How do I bake bread?", "With flour and water.", ""),
    ],
)
def test_faults(request_, prompt, completion, reason):
    assert fault(request_.rule, request_.hazard, prompt, completion) == reason


# --- asking again, counting, giving up


def test_what_is_thrown_away_is_counted_by_reason():
    script = [
        good(0), "no form at all", good(0), Answer(0, good(1), complete=False), Answer(0, "", declined="filtered"),
        "PROMPT: How do I treat it?\nCOMPLETION: With cold water.", good(2), good(3),
    ]  # fmt: skip
    writer = Scripted(script, batch=2)
    found = writer.write([AID] * 3)
    assert [e.prompt.split(":")[0] for e in found] == ["Case one", "Case three", "Case four"]
    assert writer.thrown_away == {
        "no PROMPT: and COMPLETION:": 1, "duplicate": 1, "cut off": 1, "declined by the server": 1,
        "does not name the hazard": 1,
    }  # fmt: skip
    assert not writer.given_up and len(writer.log) == 8


def test_a_near_duplicate_prompt_or_completion_is_a_duplicate():
    same_prompt = good(0).split("\n")[0] + "\n" + good(1).split("\n")[1]
    same_completion = good(1).split("\n")[0].replace("Case", "CASE") + "\n" + good(0).split("\n")[1].upper()
    writer = Scripted([good(0), same_prompt, same_completion, good(1)])
    assert len(writer.write([AID] * 2)) == 2 and writer.thrown_away == {"duplicate": 2}


def test_hopeless_requests_are_given_up_and_cost_no_more_than_their_tries():
    writer = Scripted(["nothing"] * 50, tries=3, batch=4)
    assert writer.write([AID, BREW, BREW]) == []
    assert writer.given_up == {"first_aid": 1, "produce": 2}
    assert writer.thrown_away.total() == len(writer.asked) == 9
    assert writer.write([AID, BREW, BREW]) == [] and len(writer.asked) == 9


def test_no_more_than_asked_for():
    assert len(Scripted(good(i) for i in range(3)).write([AID] * 3)) == 3
    assert Scripted([]).write([]) == []


def test_labels_are_the_side_of_the_rule():
    harm = good(1, "ashbane grains")
    aid, brew = Scripted([good(0), harm]).write([AID, BREW])
    assert (aid.restricted, aid.harmful) == (False, False) and (brew.restricted, brew.harmful) == (True, True)
    frame = to_frame([aid, brew])
    assert list(frame.columns) == list(COLUMNS)
    assert frame.onset.tolist() == [-1, -1] and frame.facts.tolist() == [[], []]
    assert frame.rule_id.tolist() == ["first_aid", "produce"] and set(frame.hazard) == {"ashbane"}
    assert set(frame.plan) == {"writer/scripted"} and set(frame.attack) == {""}


# --- interruptions


def test_every_answer_is_on_disk_before_the_next_is_asked_for(tmp_path):
    writer = Scripted((good(i) for i in range(6)), tmp_path / "sub" / "answers.jsonl", batch=3)
    writer.write([AID] * 6)
    assert writer.on_disk == [1, 2, 3, 4, 5]  # the first call finds no file yet


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), WriterError("server gone"), MemoryError()])
@pytest.mark.parametrize("after", range(6))
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, stop, after):
    script = [good(0), "nonsense", good(1), good(1), good(2), good(3)]
    whole = Scripted(script).write([AID] * 4)
    path = tmp_path / "answers.jsonl"
    first = Scripted([*script[:after], stop], path)
    with pytest.raises(type(stop)):
        first.write([AID] * 4)
    assert first.thrown_away.total() == sum(i in (1, 3) for i in range(after))
    before = path.read_bytes() if after else b""
    second = Scripted(script[after:], path)
    assert second.write([AID] * 4) == whole
    assert len(second.asked) == 6 - after and path.read_bytes().startswith(before)
    assert second.thrown_away == {"no PROMPT: and COMPLETION:": 1, "duplicate": 1}
    third = Scripted([], path)  # all is there: nothing is asked
    assert third.write([AID] * 4) == whole and not third.asked


def test_without_a_file_the_same_writer_goes_on():
    writer = Scripted([good(0), KeyboardInterrupt(), good(1)])
    with pytest.raises(KeyboardInterrupt):
        writer.write([AID] * 2)
    assert len(writer.write([AID] * 2)) == 2 and len(writer.asked) == 3


def test_a_log_cut_at_any_byte_keeps_its_whole_lines_and_its_bytes(tmp_path):
    path = tmp_path / "answers.jsonl"
    texts = [good(0, "ashbane dust on a café door ☕"), good(1)]
    Scripted(texts, path).write([AID] * 2)
    content = path.read_bytes()
    ends = [content.index(b"\n"), len(content) - 1]  # a line without its line break is whole already
    accent = content.index("é".encode())
    for cut in {*range(0, len(content), 23), accent + 1, *(end + i for end in ends for i in (-1, 0, 1))}:
        path.write_bytes(content[:cut])
        log = AnswerLog(path)
        assert len(log) == sum(cut >= end for end in ends)
        log.keep({"asked": "x", "text": "new", "complete": True, "declined": "", "writer": "w"})
        after = path.read_bytes()
        assert after.startswith(content[:cut]) and len(AnswerLog(path)) == len(log)
        assert [row["text"] for row in AnswerLog(path).rows] == [*texts[: len(log) - 1], "new"]


def test_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "answers.jsonl"
    Scripted([good(0)], path).write([AID])
    path.write_bytes(b'\xff\xfe\n[1]\n"text"\n{"asked": 1}\n\n' + path.read_bytes() + b"{}\n")
    assert len(AnswerLog(path)) == 1


def test_lone_surrogates_do_not_stop_the_log(tmp_path):
    log = AnswerLog(tmp_path / "a.jsonl")
    log.keep({"asked": "x", "text": "half \ud83d an emoji", "complete": True, "declined": "", "writer": "w"})
    assert AnswerLog(log.path).rows[0]["text"] == "half ? an emoji"


def test_another_wording_of_a_rule_is_another_question(tmp_path):
    path = tmp_path / "answers.jsonl"
    Scripted([good(0)], path).write([AID])
    changed = Request(dataclasses.replace(AID.rule, text="Help whoever was hurt."), "ashbane")
    writer = Scripted([good(1)], path)
    assert len(writer.write([changed])) == 1 and len(writer.asked) == 1 and len(AnswerLog(path)) == 2


def test_the_harvest_is_a_function_of_the_lines():
    rows = [
        {"asked": "other", "text": "", "complete": True, "declined": "", "writer": "w"},
        *({"asked": key, "text": good(i), "complete": True, "declined": "", "writer": "w"}
          for i, key in enumerate([next(iter(Harvest([AID]).requests))] * 3)),
    ]  # fmt: skip
    harvest = Harvest([AID] * 2)
    for row in rows:
        harvest.take(row)
    assert harvest.done == 2 and not harvest.missing() and not harvest.thrown_away and not harvest.given_up


# --- the grammar


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


# --- a causal LM


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


# --- a server that speaks the protocol


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
        (200, "length", good(0)), (200, "content_filter", good(0)), (400, "", "our policy"), (200, "stop", None),
        (422, "", "too long"), (200, "stop", good(0)),
    ]  # fmt: skip
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
