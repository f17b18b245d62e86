"""What may go out: each step of a reply is scored, then released or held for good. Built in chapters 07 and 08.

One gate per reply: `TokenGate` where the assistant and the output classifier share a tokenizer, `TextGate` where they
do not (or where the text comes from elsewhere), `OpenGate` where nobody watches. `push` yields what is cleared, one
step at a time and only while it is read; `flush` clears the rest; once `halted`, nothing follows.

Deliberately not here: what the decision rests on (`streaming.crosses`), the assistant, the reply.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ClassifierError
from ..generation import StopSequences
from ..streaming import Row, crosses
from .types import TokenEvent


class OpenGate:
    """Lets everything pass, up to a stop sequence. `tokens`: the text of each step; `scores`: one per step (none here);
    `halted`: whether a step crossed the threshold. A context manager.
    """

    def __init__(self, stops: StopSequences):
        self.tokens: list[str] = []
        self.scores: list[float] = []
        self.halted = False
        self.layers: tuple[int, ...] = ()  # of the assistant's hidden states, those that are wanted
        self._stops = stops

    def push(self, token: int, text: str, states=None) -> Iterator[TokenEvent]:
        """The next token of the reply, and the whole characters that it completes ("" for none). states: its hidden
        states, for a monitor that reads them.
        """
        self.tokens.append(text)
        yield TokenEvent(self._stops.push(text), token)

    def flush(self, text: str) -> Iterator[TokenEvent]:
        """The end: the characters that were left, an incomplete one as U+FFFD."""
        if rest := self._stops.push(text) + self._stops.flush():
            yield TokenEvent(rest)

    def close(self) -> None:
        """Frees what the gate holds. May be called twice."""

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()


class TokenGate(OpenGate):
    """Scores every token on `stream` (a monitor's: streaming.TokenStream or alike, owned). `tokens` and `scores`
    include the one that crossed. Raises what the stream raises, and is then halted for good.
    """

    def __init__(self, stops: StopSequences, stream, threshold: float, layers: tuple[int, ...] = ()):
        super().__init__(stops)
        self._stream, self._threshold, self.layers = stream, threshold, layers

    def push(self, token: int, text: str, states=None) -> Iterator[TokenEvent]:
        self.scores += self._stream.push([token], states)
        self.tokens.append(text)
        self.halted = crosses(self._stream.risk, self._threshold)
        if not self.halted:
            yield TokenEvent(self._stops.push(text), token, self.scores[-1], self._stream.risk)

    def flush(self, text: str) -> Iterator[TokenEvent]:  # whole characters of tokens that were scored above
        for event in super().flush(text):
            yield TokenEvent(event.text, None, self.scores[-1], self._stream.risk)

    def close(self) -> None:
        self._stream.close()


class TextGate(OpenGate):
    """Scores text on `stream` (streaming.TextStream, owned), in pieces that do not depend on how it arrives. A step is
    a piece, its score that of its highest token.
    """

    def __init__(self, stops: StopSequences, stream, threshold: float):
        super().__init__(stops)
        self._stream, self._threshold = stream, threshold

    def push(self, token: int | None, text: str, states=None) -> Iterator[TokenEvent]:
        yield from self.push_delta(self._stops.push(text))

    def flush(self, text: str) -> Iterator[TokenEvent]:
        yield from self.push_delta(self._stops.push(text) + self._stops.flush(), final=True)

    def push_delta(self, delta: str | bytes | None, final: bool = False) -> Iterator[TokenEvent]:
        """The same for text as a provider sends it (bytes may cut characters), without stop sequences."""
        for piece in self._stream.pieces(delta, final):
            self.tokens.append(piece.text)
            self.scores.append(max(piece.scores, default=0.0))
            self.halted = crosses(piece.risk, self._threshold)
            if self.halted:
                return
            yield TokenEvent(piece.text, None, self.scores[-1], piece.risk)

    def close(self) -> None:
        self._stream.close()


class ScoredRow:
    """A gate's view of a row that the batch has read already. A token that was not read is an error, never a score."""

    def __init__(self, row: Row):
        self._row, self._handed = row, 0

    @property
    def risk(self) -> float:
        return self._row.risk

    def push(self, token_ids: list[int], states=None) -> list[float]:
        if self._row.error is not None:
            raise self._row.error
        self._handed += len(token_ids)
        if len(self._row.scores) != self._handed:
            raise ClassifierError("a token was to be released that the batch has not scored")
        return self._row.scores[-len(token_ids) :]

    def close(self) -> None:
        """Whoever owns the batch takes the row out of it."""
