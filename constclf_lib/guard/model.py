"""The guarded system: input classifier, assistant, output classifier, and the decision to release. Chapter 08 builds
it, chapter 00 shows it.

What holds (tests/guard/):
- A token is scored before it is released; the one that crosses and everything after it is withheld. Flagged is `score >
  threshold`, strictly, everywhere.
- Whatever goes wrong in a classifier or in the assistant ends the reply with status "error" and nothing more is
  released. An interrupt is raised again, after the streams are closed. The next request starts from nothing.
- The assistant's private note is never released and never scored; it is in `Reply.note` for whoever studies the lab.
- An assistant with another tokenizer than the output classifier's is guarded through its text, piece by piece
  (`streaming.TextStream`).

Deliberately not here: thresholds chosen on data (`evaluation`), grading (`lab`), retries.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

from transformers import AutoModelForCausalLM, AutoTokenizer

from .._data import data_path
from ..errors import ClassifierError
from ..generation import Detokenizer, StopSequences, Turn
from ..models import InputClassifier, OutputClassifier, quiet
from ..streaming import StreamingScorer, within
from ..tokenization import decode_text, fingerprint
from .types import Reply, Thresholds, TokenEvent


class GuardedModel:
    """An assistant between its bodyguards.

    assistant, tokenizer: any Hugging Face causal LM and its tokenizer. input_classifier (.score(prompts)),
    output_classifier (OutputClassifier): either may be None, which leaves that side unguarded; thresholds are needed as
    soon as one of them is there (ValueError). rule: the stop rule of the output side. max_note_tokens: cap of a lab
    assistant's private note. step_timeout: seconds that one call of a classifier or one step of the assistant may take;
    then the reply ends with status "error". Holds no state of any request: any number may run at once.
    """

    def __init__(
        self,
        assistant,
        tokenizer,
        input_classifier=None,
        output_classifier=None,
        thresholds: Thresholds | None = None,
        rule=None,
        max_note_tokens: int = 96,
        step_timeout: float | None = None,
    ):
        if thresholds is None and not (input_classifier is None and output_classifier is None):
            raise ValueError(
                "a guard without thresholds would release everything; pass thresholds, or no classifiers at all"
            )
        self.assistant, self.tokenizer = assistant.eval(), tokenizer
        self.input_classifier, self.output_classifier = input_classifier, output_classifier
        self.thresholds, self.max_note_tokens, self.step_timeout = thresholds, max_note_tokens, step_timeout
        self.scorer = (
            None if output_classifier is None else StreamingScorer(output_classifier, rule, step_timeout=step_timeout)
        )
        self.through_text = output_classifier is not None and output_classifier.fingerprint != fingerprint(tokenizer)
        if self.through_text and output_classifier.tokenizer is None:
            raise ValueError(
                "the assistant has another tokenizer than the output classifier, which has none to read text with"
            )

    @classmethod
    def from_lab(cls, device: str | None = None, **options) -> GuardedModel:
        """The lab's assistant, classifiers and calibrated thresholds, from data/models. options go to the constructor.

        Raises FileNotFoundError, naming the command that builds what is missing.
        """
        values = json.loads(data_path("models", "thresholds.json").read_text())
        folder = data_path("models", "assistant")
        with quiet():
            models = (
                AutoModelForCausalLM.from_pretrained(folder),
                InputClassifier.from_pretrained(data_path("models", "input_classifier")),
                OutputClassifier.from_pretrained(data_path("models", "output_classifier")),
            )
        assistant, reader, listener = (model if device is None else model.to(device) for model in models)
        options.setdefault("thresholds", Thresholds(values["input"], values["off_label"], values["output"]))
        return cls(assistant, AutoTokenizer.from_pretrained(folder), reader, listener, **options)

    def reply(self, prompt: str, **options) -> Reply:
        """The whole reply at once: `stream` read to its end, with the same options."""
        for event in self.stream(prompt, **options):
            last = event
        return last

    def stream(
        self,
        prompt: str,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        guard: bool = True,
        thresholds: Thresholds | None = None,
    ) -> Iterator[TokenEvent | Reply]:
        """TokenEvents, each already cleared for release, then one Reply. The texts of the events join to
        Reply.released_text.

        temperature 0 is greedy; otherwise the same seed gives the same reply, whatever else uses random numbers. stop:
        sequences that end the reply and are not part of it. guard=False asks neither classifier. thresholds: instead of
        the model's own, for this reply. Raises TypeError or ValueError at once for arguments that make no sense;
        everything later is told in the Reply.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt is a string, not {type(prompt).__name__}")
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if not all(isinstance(text, str) and text for text in stops):
            raise ValueError("a stop sequence is a string of at least one character")
        if not (0 <= temperature < math.inf) or max_new_tokens < 0:
            raise ValueError(
                f"temperature ({temperature}) and max_new_tokens ({max_new_tokens}) must be finite and not negative"
            )
        turn_options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        return self._run(prompt, turn_options, StopSequences(stops), guard, thresholds or self.thresholds)

    def _run(self, prompt, turn_options, stops, guard, limits) -> Iterator[TokenEvent | Reply]:
        reply = Reply()
        try:
            if guard and self.input_classifier is not None and self._blocks(prompt, reply, limits):
                reply.status = "blocked_input"
            else:
                yield from self._answer(prompt, reply, turn_options, stops, guard and self.scorer is not None, limits)
        except Exception as error:
            reply.status, reply.error = "error", f"{type(error).__name__}: {error}"
        yield reply

    def _blocks(self, prompt: str, reply: Reply, limits: Thresholds) -> bool:
        scores = within(self.step_timeout, lambda: self.input_classifier.score([prompt]))
        reply.input_score, reply.off_label = float(scores.harm[0]), float(scores.off_label[0])
        if not (math.isfinite(reply.input_score) and math.isfinite(reply.off_label)):
            raise ClassifierError(
                f"the input classifier gave {reply.input_score} and {reply.off_label}; nothing may be released on that"
            )
        return reply.input_score > limits.input or reply.off_label > limits.off_label

    def _answer(self, prompt, reply, turn_options, stops, guard, limits) -> Iterator[TokenEvent]:
        """Fills `reply` and yields what may go out. What was written is counted in `written`, so whatever is not
        released is known to be withheld.
        """
        written = ""
        detokenizer = Detokenizer(self.tokenizer)
        try:
            with ExitStack() as stack:
                scored = None
                if guard:
                    scored = stack.enter_context(self.scorer.open_text() if self.through_text else self.scorer.open())
                turn = Turn(
                    self.assistant,
                    self.tokenizer,
                    prompt,
                    max_note_tokens=self.max_note_tokens,
                    step_timeout=self.step_timeout,
                    **turn_options,
                )
                stack.enter_context(closing(turn))
                reply.prompt_tokens = len(turn.prompt_ids)
                by_text = guard and self.through_text
                for token in turn:
                    text = detokenizer.push(token)
                    written += text
                    if by_text:
                        yield from self._pieces(reply, scored, limits, stops.push(text))
                    elif self._crosses(reply, scored, limits, token, text):
                        reply.halt_index = len(reply.tokens) - 1
                        written += detokenizer.flush()  # for the record only: half a character
                    else:
                        yield self._release(reply, stops.push(text), token, scored)
                    if reply.halt_index is not None or stops.found:
                        break
                reply.note = decode_text(self.tokenizer, turn.note_ids)
                if reply.halt_index is None:
                    reply.finish = "stop" if stops.found else turn.finish
                    tail = "" if stops.found else detokenizer.flush()
                    written += tail
                    tail = stops.push(tail) + stops.flush()
                    if by_text:
                        yield from self._pieces(reply, scored, limits, tail, final=True)
                    elif tail:  # only whole characters of tokens that were scored above
                        yield self._release(reply, tail, None, scored)
                reply.status = "released" if reply.halt_index is None else "halted_output"
        finally:
            if reply.status != "released":
                reply.withheld_text = written[len(reply.released_text) :]

    def _crosses(self, reply: Reply, scored, limits, token: int, text: str) -> bool:
        if scored is not None:
            reply.token_scores += scored.push([token])
        reply.tokens.append(text)
        return scored is not None and scored.risk > limits.output

    def _pieces(self, reply: Reply, scored, limits, text: str, final: bool = False) -> Iterator[TokenEvent]:
        for piece in scored.pieces(text, final):
            reply.tokens.append(piece.text)
            reply.token_scores.append(max(piece.scores, default=0.0))
            if piece.risk > limits.output:
                reply.halt_index = len(reply.tokens) - 1
                return
            yield self._release(reply, piece.text, None, scored)

    def _release(self, reply: Reply, text: str, token: int | None, scored) -> TokenEvent:
        reply.released_text += text
        if scored is None:
            return TokenEvent(text, token)
        return TokenEvent(text, token, reply.token_scores[-1], scored.risk)
