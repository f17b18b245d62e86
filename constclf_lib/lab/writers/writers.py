"""Who writes the exchanges: the grammar of Emberfall, any Hugging Face causal LM, or any OpenAI-compatible server.

Built in chapter 01. All three answer `write(requests) -> list[Exchange]` and count in `thrown_away` what they did not
keep. The grammar knows the truth about what it writes. A language model is told a rule (`constitution.system_prompt`);
its answer is parsed, checked and compared with what is there (journal.py), and a bad one is asked for again.

With a `path`, every answer is on the disk before the next is asked for: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, Pipeline

from ...tokenization import decode_text, text_ids
from .. import world
from ..constitution import Constitution, system_prompt
from ..exchanges import COLUMNS, Exchange, write_exchange
from .journal import AnswerLog, Harvest, Request, key_of


class WriterError(RuntimeError):
    """A writer cannot go on. What it has written so far is kept; call `write` again to go on."""


def requests_for(constitution: Constitution, each: int = 1, rules: Sequence[str] = ()) -> list[Request]:
    """`each` requests per rule and hazard, for both halves of the constitution (or only for the rules named)."""
    chosen = [constitution[rule_id] for rule_id in rules] or constitution.rules
    return [Request(rule, hazard) for rule in chosen for hazard in rule.hazards or ("",) for _ in range(each)]


def to_frame(exchanges: Sequence[Exchange]) -> pd.DataFrame:
    """Exchanges as a table with the columns of the lab's splits (see `Exchange`).

    For a model's exchanges: `restricted` and `harmful` are the side of the rule; `onset` is -1 because nobody knows it,
    also where `harmful` is true; `facts` is empty; `plan` says "writer/<name>"; the other text columns are "".
    """
    return pd.DataFrame([asdict(e) | {"facts": list(e.facts)} for e in exchanges], columns=list(COLUMNS))


class GrammarWriter:
    """The default: fast, free, and the only one that knows onset and rubric. The same seed writes the same texts."""

    def __init__(self, split: str = "train", seed: int = 0, **options):
        """`options` go to `write_exchange`: attack, behaviour, varied, distractor, sentences."""
        self.split, self.seed, self.options = split, seed, options
        self.thrown_away: Counter = Counter()

    def write(self, requests: Sequence[Request]) -> list[Exchange]:
        """One distinct exchange per request. Raises WriterError if the grammar has nothing new to say."""
        rng, self.thrown_away = random.Random(f"writer/{self.split}/{self.seed}"), Counter()
        found: dict[tuple[str, str], Exchange] = {}
        for rule, hazard in requests:
            topics = [t for t in world.topics() if t.rule_id == rule.id and hazard in ("", t.target)]
            if not topics:
                raise WriterError(f"the grammar knows nothing about the rule {rule.id!r} and {hazard or 'no hazard'!r}")
            for _ in range(100):
                exchange = write_exchange(rng, self.split, rng.choice(topics), **self.options)
                if found.setdefault((exchange.prompt, exchange.completion), exchange) is exchange:
                    break
                self.thrown_away["duplicate"] += 1
            else:
                raise WriterError(f"no new exchange about {rule.id!r} in 100 tries; ask for fewer")
        return list(found.values())


class Answer(NamedTuple):
    """What came back for request number `place` of a batch. complete: the model came to an end of its own."""

    place: int
    text: str
    complete: bool = True
    declined: str = ""


class LanguageModelWriter:
    """Asks, parses, checks, retries, keeps the log. A subclass says how one asks (`ask`)."""

    name = "language model"

    def __init__(
        self,
        path: str | os.PathLike | None = None,
        *,
        tries: int = 4,
        batch: int = 8,
        near: float = 0.8,
        max_tokens: int = 400,
        temperature: float = 1.0,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        """Where answers are kept, and how often a request is asked again.

        path: the file of answers (None: in memory only). tries: answers per request before it is given up. batch:
        requests asked at a time. near: Jaccard index from which two prompts, or two completions, count as one.
        """
        self.tries, self.batch, self.near = tries, batch, near
        self.max_tokens, self.temperature, self.seed, self.progress = max_tokens, temperature, seed, progress
        self.log = AnswerLog(path)
        self.thrown_away: Counter = Counter()
        self.given_up: Counter = Counter()

    def ask(self, batch: Sequence[Request], number: int) -> Iterator[Answer]:
        """Answers, as they arrive.

        `number` grows with every call: it goes into the seed and into the question, so that a model that ignores seeds
        is not asked the same twice.
        """
        raise NotImplementedError

    def write(self, requests: Sequence[Request]) -> list[Exchange]:
        """The exchanges that the model could give, at most one per request; what the log holds already counts.

        thrown_away: reason -> answers not kept. given_up: rule id -> requests not filled in `tries` answers each.
        Interrupted, or after a WriterError, call it again: the same writer, or a new one on the same path, goes on.
        """
        harvest = Harvest(requests, self.tries, self.near)
        for row in self.log.rows:
            harvest.take(row)
        try:
            with tqdm(total=len(requests), initial=harvest.done, desc=self.name, disable=not self.progress) as bar:
                while batch := harvest.missing()[: self.batch]:
                    for answer in self.ask(batch, len(self.log)):
                        row = self._row(answer, batch[answer.place])
                        self.log.keep(row)
                        harvest.take(row)
                        bar.update(harvest.done - bar.n)
                        bar.set_postfix(thrown_away=harvest.thrown_away.total())
        finally:
            self.thrown_away, self.given_up = harvest.thrown_away, harvest.given_up
        return harvest.exchanges

    def _row(self, answer: Answer, request: Request) -> dict:
        row = {"asked": key_of(*request), "rule": request.rule.id, "hazard": request.hazard, "writer": self.name}
        return row | {name: value for name, value in answer._asdict().items() if name != "place"}

    @staticmethod
    def _messages(request: Request, number: int) -> list[Any]:
        told = system_prompt(request.rule, request.hazard or None)
        return [{"role": "system", "content": told}, {"role": "user", "content": f"Write exchange number {number}."}]


class HuggingFaceWriter(LanguageModelWriter):
    """Any causal LM: a name or path, a model with its tokenizer, or a text-generation pipeline.

    With a chat template the rule is the system message; without one the model reads the rule and `PROMPT:` and goes on.
    Raises WriterError if there is no tokenizer.
    """

    def __init__(self, model, tokenizer=None, path=None, **options):
        super().__init__(path, **options)
        if isinstance(model, str | os.PathLike):
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
            device = os.environ.get("CONSTCLF_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
            model = AutoModelForCausalLM.from_pretrained(model).to(device)
        elif isinstance(model, Pipeline):
            model, tokenizer = model.model, tokenizer or model.tokenizer
        if tokenizer is None:
            raise WriterError("give the tokenizer, too: HuggingFaceWriter(model, tokenizer)")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name = os.path.basename(str(getattr(model, "name_or_path", ""))) or "hugging face model"

    @torch.inference_mode()
    def ask(self, batch: Sequence[Request], number: int) -> Iterator[Answer]:
        rows = [self._ids(request, number + i) for i, request in enumerate(batch)]
        longest, pad = max(map(len, rows)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=self.model.device)
        seen = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.model.device)
        sampling = {"do_sample": True, "temperature": self.temperature} if self.temperature else {"do_sample": False}
        with torch.random.fork_rng():  # a writer leaves the notebook's random numbers alone
            torch.manual_seed(1_000_003 * self.seed + number)
            written = self.model.generate(
                input_ids=ids, attention_mask=seen, max_new_tokens=self.max_tokens, pad_token_id=pad, **sampling
            )[:, longest:].tolist()
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends or ())
        for place, row in enumerate(written):
            end = next((i for i, token in enumerate(row) if token in ends), None)
            text = decode_text(self.tokenizer, row[:end])
            yield Answer(place, text if self.tokenizer.chat_template else f"PROMPT:{text}", end is not None)

    def _ids(self, request: Request, number: int) -> list[int]:
        messages = self._messages(request, number)
        if not self.tokenizer.chat_template:
            start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            return start + text_ids(self.tokenizer, "\n\n".join(m["content"] for m in messages) + "\n\nPROMPT:")
        try:
            return self._templated(messages)
        except Exception:  # some templates know no system role
            return self._templated([{"role": "user", "content": "\n\n".join(m["content"] for m in messages)}])

    def _templated(self, messages: list) -> list[int]:
        found = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return list(found["input_ids"])


class OpenAIWriter(LanguageModelWriter):
    """Any server that speaks the chat-completions protocol, through the `openai` client; `batch` requests at a time.

    OpenAIWriter("llama", base_url="http://localhost:8000/v1"). Without base_url and api_key the client takes
    OPENAI_BASE_URL and OPENAI_API_KEY. The client itself waits and retries when the server is busy; what still fails
    raises WriterError. A request that the server will not serve (its filter, or too long) counts as declined.
    """

    def __init__(self, model: str, base_url=None, api_key=None, path=None, *, client=None, request=None, **options):
        """client: an `openai.OpenAI` of your own. request: more arguments for every call, such as {"top_p": 0.9}."""
        import openai

        super().__init__(path, **options)
        key = api_key or os.environ.get("OPENAI_API_KEY") or ("none needed" if base_url else None)
        self.client = client or openai.OpenAI(base_url=base_url, api_key=key, max_retries=5)
        self.name, self.request = model, request or {}

    def ask(self, batch: Sequence[Request], number: int) -> Iterator[Answer]:
        from openai import OpenAIError

        failure, pool = None, ThreadPoolExecutor(len(batch))
        try:
            for future in as_completed([pool.submit(self._one, i, r, number + i) for i, r in enumerate(batch)]):
                try:
                    yield future.result()
                except OpenAIError as error:  # first keep what the others brought
                    failure = error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            kept = f"{len(self.log)} answers are kept" + (f" in {self.log.path}" if self.log.path else "")
            raise WriterError(f"the server failed ({failure}); {kept}; call write again to go on") from failure

    def _one(self, place: int, request: Request, number: int) -> Answer:
        from openai import BadRequestError, UnprocessableEntityError

        settings = {"max_tokens": self.max_tokens, "temperature": self.temperature, "seed": self.seed + number}
        try:
            reply = self.client.chat.completions.create(
                model=self.name, messages=self._messages(request, number), **{**settings, **self.request}
            )
        except (BadRequestError, UnprocessableEntityError) as error:
            return Answer(place, "", declined=str(error)[:300])
        choice = reply.choices[0]
        declined = choice.message.refusal if hasattr(choice.message, "refusal") else ""
        filtered = choice.finish_reason == "content_filter"
        return Answer(
            place, choice.message.content or "", choice.finish_reason != "length", declined or "filtered" * filtered
        )
