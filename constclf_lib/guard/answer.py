"""One guarded reply while it is being written: the assistant's tokens in, cleared events out, and the Reply filled in.
Built in chapter 08.

The same object stands behind one stream (model.py) and behind many that are written together (engine.py), so both
decide, withhold and fail alike.

Deliberately not here: who writes the tokens, who scores them (gates.py), the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ClassifierTimeout, PromptTooLongError
from ..generation import Detokenizer, StopSequences
from .gates import OpenGate
from .types import Reply, TokenEvent


class Answer:
    """reply: filled in while this goes on. gate: decides what goes out (owned by the caller). `over`: no further token
    is wanted. Whatever was written and is not released is known to be withheld.
    """

    def __init__(self, reply: Reply, tokenizer, gate: OpenGate, stops: StopSequences):
        self.reply, self.gate = reply, gate
        reply.tokens, reply.token_scores = gate.tokens, gate.scores
        self._stops, self._detokenizer, self._written = stops, Detokenizer(tokenizer), ""

    @property
    def over(self) -> bool:
        return self.gate.halted or self._stops.found

    def push(self, token: int, states=None) -> Iterator[TokenEvent]:
        """The next token of the reply; what may go out now. Raises what the gate raises."""
        text = self._detokenizer.push(token)
        self._written += text
        yield from self._released(self.gate.push(token, text, states))

    def end(self, finish: str | None) -> Iterator[TokenEvent]:
        """The end: what was held back, and what became of the reply. finish: why the assistant stopped."""
        rest = "" if self._stops.found else self._detokenizer.flush()  # half a character; after a halt for the record
        self._written += rest
        if not self.gate.halted:
            yield from self._released(self.gate.flush(rest))
        if self.gate.halted:
            self.reply.status, self.reply.halt_index = "halted_output", len(self.reply.tokens) - 1
        else:
            self.reply.status, self.reply.finish = "released", "stop" if self._stops.found else finish

    def withhold(self) -> None:
        """Notes what was written and not released. To be called however it ended; may be called twice."""
        if self.reply.status != "released":
            self.reply.withheld_text = self._written[len(self.reply.released_text) :]

    def _released(self, events: Iterator[TokenEvent]) -> Iterator[TokenEvent]:
        while True:
            with blame(self.reply, "classifier"):
                event = next(events, None)
            if event is None:
                return
            self.reply.released_text += event.text
            yield event


@contextmanager
def blame(reply: Reply, who: str) -> Iterator[None]:
    """Writes down which part failed (`Reply.error_kind`) and lets the failure pass."""
    try:
        yield
    except Exception as error:
        if isinstance(error, PromptTooLongError):
            reply.error_kind = "context_length_exceeded"
        elif who == "bad_input":
            reply.error_kind = who
        else:
            reply.error_kind = f"{who}_{'timeout' if isinstance(error, ClassifierTimeout) else 'failed'}"
        raise


def fail(reply: Reply, error: Exception) -> None:
    """What the Reply says of a failure that `blame` has named, or of one that nobody foresaw."""
    reply.status, reply.error = "error", f"{type(error).__name__}: {error}"
    reply.error_kind = reply.error_kind or "generation_failed"
