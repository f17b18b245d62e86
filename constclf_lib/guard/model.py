"""The guarded system: input classifier, assistant, output classifier, and the decision to release. Chapter 08 builds
it, chapter 00 shows it.

What holds (tests/guard/):
- A token is scored before it is released; the one that crosses and everything after it is withheld. Flagged is `score >
  threshold`, strictly, everywhere (`streaming.crosses`).
- Whatever goes wrong in a classifier or in the assistant ends the reply with status "error" and nothing more is
  released. An interrupt is raised again, after the streams are closed. The next request starts from nothing.
- A prompt that does not fit is refused before anything is scored.
- Of a conversation the input classifier reads every turn of the user alone and all of them joined; the highest score
  counts. (An exchange classifier, which reads prompt and reply, gets them joined.)
- The assistant's private note is never released and never scored; it is in `Reply.note` for whoever studies the lab.
- An assistant with another tokenizer than the output classifier's is guarded through its text, piece by piece
  (gates.py).

Deliberately not here: thresholds chosen on data (`evaluation`), grading (`lab`), retries.
"""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path
from typing import cast

from .._data import data_path
from .._files import standing
from ..errors import ClassifierError
from ..generation import StopSequences, Turn, read_prompt
from ..prompts import Prompt, conversation, texts_to_judge, user_text
from ..streaming import StreamingScorer, within
from ..tokenization import decode_text, fingerprint
from .answer import Answer, blame, fail
from .folder import CARD, PARTS, load_parts, read_card, save_guard
from .gates import OpenGate, TextGate, TokenGate
from .in_thread import in_thread
from .types import REFUSAL, Reply, Thresholds, TokenEvent, blocks


class GuardedModel:
    """An assistant between its bodyguards.

    assistant, tokenizer: any Hugging Face causal LM and its tokenizer. input_classifier (.score(prompts)),
    output_classifier (OutputClassifier, ExchangeClassifier): either may be None, which leaves that side unguarded;
    thresholds are needed as soon as one of them is there (ValueError). rule: the stop rule of the output side. monitor:
    what watches the reply instead of an output classifier: a StreamingScorer, ProbeScorer or Cascade (chapter 10); it
    must belong to this assistant. max_note_tokens: cap of a lab
    assistant's private note. step_timeout: seconds that one call of a classifier or one step of the assistant may take;
    then the reply ends with status "error". max_prompt_tokens: the longest prompt, in tokens that the assistant reads;
    None for its context. A longer one costs no more than finding that out: it is encoded only if it is at most that
    many of the vocabulary's longest token (20 characters in the lab), at about 0.25 KB a token. refusal_text:
    `Reply.refusal` of what is blocked or halted. judged_roles: whose messages the bodyguards read; the user's alone
    where a program keeps the conversation itself, all of them ("system", "user", "assistant") where the messages come
    from someone who could write a request under any role, apart from an assistant's message with `released: True`, of
    which whoever calls knows that a guard released it. Holds no state of any request: any number may run at once.
    """

    def __init__(
        self,
        assistant,
        tokenizer,
        input_classifier=None,
        output_classifier=None,
        thresholds: Thresholds | None = None,
        rule=None,
        max_note_tokens: int = 320,
        step_timeout: float | None = None,
        max_prompt_tokens: int | None = None,
        refusal_text: str = REFUSAL,
        monitor=None,
        judged_roles: Sequence[str] = ("user",),
    ):
        if "user" not in judged_roles:
            raise ValueError("the user's messages are always judged; judged_roles must name the user")
        if monitor is not None and not (output_classifier is None and rule is None):
            raise ValueError("a monitor stands in place of the output classifier and has a rule of its own; pass one")
        if thresholds is None and not (input_classifier is None and output_classifier is None and monitor is None):
            raise ValueError(
                "a guard without thresholds would release everything; pass thresholds, or no classifiers at all"
            )
        self.assistant, self.tokenizer = assistant.eval(), tokenizer
        self.input_classifier, self.output_classifier = input_classifier, output_classifier
        self.thresholds, self.max_note_tokens, self.step_timeout = thresholds, max_note_tokens, step_timeout
        self.max_prompt_tokens, self.refusal_text = max_prompt_tokens, refusal_text
        self.monitor, self.judged_roles = monitor, tuple(judged_roles)
        if output_classifier is not None:
            self.monitor = StreamingScorer(output_classifier, rule, step_timeout=step_timeout)
        elif monitor is not None:
            monitor.check_assistant(assistant, tokenizer)
        self.through_text = output_classifier is not None and output_classifier.fingerprint != fingerprint(tokenizer)
        if self.through_text and output_classifier.tokenizer is None:
            raise ValueError(
                "the assistant has another tokenizer than the output classifier, which has none to read text with"
            )

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, device: str | None = None, **options) -> GuardedModel:
        """What `save_pretrained` wrote: assistant, classifiers and thresholds. device: moves all of them there if
        given. options go to the constructor.

        Raises FileNotFoundError for a missing part and ClassifierError for a damaged one, both saying what to do;
        ValueError where the thresholds were chosen for another stop rule than the one given.
        """
        folder = standing(folder)
        card = read_card(folder)
        rule = options.get("rule")
        given = "RunningMax" if rule is None else type(rule).__name__
        if given != card["rule"] and "thresholds" not in options:
            raise ValueError(
                f"the thresholds in {folder} were chosen for the stop rule {card['rule']}, not {given}: "
                "pass that rule, or thresholds that were chosen for this one"
            )
        assistant, tokenizer, *classifiers = load_parts(folder, card["parts"])
        moved = [part if device is None or part is None else part.to(device) for part in (assistant, *classifiers)]
        options.setdefault("thresholds", card["thresholds"])
        return cls(moved[0], tokenizer, *moved[1:], **options)

    @classmethod
    def from_lab(cls, device: str | None = None, **options) -> GuardedModel:
        """The lab's assistant, classifiers and calibrated thresholds: `from_pretrained` of data/models.

        Raises FileNotFoundError, naming the command that builds what is missing.
        """
        for part in (*PARTS, CARD):
            data_path("models", part)
        return cls.from_pretrained(data_path("models"), device, **options)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes assistant/, input_classifier/, output_classifier/ and thresholds.json to `folder` (folder.py), loaded
        once before they replace what stood there. Settings of a service (time limits, wordings) are not saved.
        """
        save_guard(self, Path(folder))

    def reply(self, prompt: Prompt, **options) -> Reply:
        """The whole reply at once: `stream` read to its end, with the same options."""
        *_, reply = self.stream(prompt, **options)
        return cast(Reply, reply)

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        guard: bool = True,
        thresholds: Thresholds | None = None,
    ) -> Generator[TokenEvent | Reply, None, None]:
        """TokenEvents, each already cleared for release, then one Reply. The texts of the events join to
        Reply.released_text.

        prompt: a text, or chat messages with `role` ("system", "user", "assistant") and `content`, the last one the
        user's; of an earlier reply, `history_after` says what may stand there. temperature 0 is greedy; otherwise the
        same seed gives the same reply, whatever else uses random numbers. stop:
        sequences that end the reply and are not part of it. guard=False asks neither classifier. thresholds: instead of
        the model's own, for this reply. Raises TypeError or ValueError at once for arguments that make no sense;
        everything later is told in the Reply.
        """
        turn_options, stops = reading_options(prompt, max_new_tokens, temperature, seed, stop)
        return self._run(prompt, turn_options, stops, guard, thresholds or self.thresholds)

    def astream(
        self, prompt: Prompt, executor: Executor | None = None, **options
    ) -> AsyncGenerator[TokenEvent | Reply, None]:
        """`stream` for an event loop, which goes on meanwhile: each step runs in a thread (of `executor`, or the loop's
        own). Left early, by `aclose` or a cancelled task, it ends as a `stream` that is closed.
        """
        return in_thread(self.stream(prompt, **options), executor)

    def _run(self, prompt, turn_options, stops, guard, limits) -> Generator[TokenEvent | Reply, None, None]:
        reply = Reply()
        try:
            with blame(reply, "bad_input"):
                prompt_ids = read_prompt(self.assistant, self.tokenizer, prompt, self.max_prompt_tokens)
            reply.prompt_tokens = len(prompt_ids)
            if guard and self.input_classifier is not None and self._blocks(prompt, reply, limits):
                reply.status = "blocked_input"
            else:
                yield from self._answer(prompt, prompt_ids, reply, turn_options, stops, guard, limits)
        except Exception as error:
            fail(reply, error)
        if reply.status in ("blocked_input", "halted_output"):
            reply.refusal = self.refusal_text
        yield reply

    def _blocks(self, prompt: Prompt, reply: Reply, limits: Thresholds) -> bool:
        with blame(reply, "classifier"):
            texts = texts_to_judge(prompt, self.judged_roles)
            scores = within(self.step_timeout, lambda: self.input_classifier.score(texts))
            harm, off_label = judge_prompt(reply, scores.harm.tolist(), scores.off_label.tolist())
        return blocks(limits, harm, off_label)

    def _answer(self, prompt, prompt_ids, reply, turn_options, stops, guard, limits) -> Iterator[TokenEvent]:
        """Fills `reply` and yields what may go out."""
        answer = None
        turn_options |= {"max_note_tokens": self.max_note_tokens, "step_timeout": self.step_timeout}
        try:
            with blame(reply, "classifier"):
                gate = self._gate(prompt, stops, guard, limits)
                turn_options["layers"] = gate.layers
            with gate, closing(Turn(self.assistant, self.tokenizer, prompt_ids, **turn_options)) as turn:
                answer = Answer(reply, self.tokenizer, gate, stops)
                for token in self._tokens(turn, reply):
                    yield from answer.push(token, turn.states)
                    if answer.over:
                        break
                reply.note, reply.note_tokens = decode_text(self.tokenizer, turn.note_ids), len(turn.note_ids)
                yield from answer.end(turn.finish)
        finally:
            if answer is not None:
                answer.withhold()

    def _gate(self, prompt: Prompt, stops: StopSequences, guard: bool, limits: Thresholds) -> OpenGate:
        if not guard or self.monitor is None:
            return OpenGate(stops)
        asked = user_text(prompt, self.judged_roles)
        if self.through_text:
            return TextGate(stops, self.monitor.open_text(asked), limits.output)
        return TokenGate(stops, self.monitor.open(prompt=asked), limits.output, self.monitor.layers)

    @staticmethod
    def _tokens(turn: Turn, reply: Reply) -> Iterator[int]:
        with blame(reply, "generation"):
            yield from turn


def reading_options(prompt: Prompt, max_new_tokens, temperature, seed, stop) -> tuple[dict, StopSequences]:
    """Options of a Turn, and the stop sequences. Raises TypeError or ValueError for what makes no sense."""
    conversation(prompt)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(text, str) and text for text in stops):
        raise ValueError("a stop sequence is a string of at least one character")
    if not (0 <= temperature < math.inf) or max_new_tokens < 0:
        raise ValueError(
            f"temperature ({temperature}) and max_new_tokens ({max_new_tokens}) must be finite and not negative"
        )
    return {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}, StopSequences(stops)


def judge_prompt(reply: Reply, harm: Sequence[float], off_label: Sequence[float]) -> tuple[float, float]:
    """Notes and returns the highest of an input classifier's scores. Raises ClassifierError for one that is no
    number.
    """
    highest = max(harm), max(off_label)
    reply.input_score, reply.off_label = highest
    if not all(math.isfinite(score) for score in (*harm, *off_label)):
        raise ClassifierError(f"the input classifier gave {harm} and {off_label}; nothing may be released on that")
    return highest
