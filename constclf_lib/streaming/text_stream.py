"""Scoring text from any source in any chunks: sentences, characters, half a character. Built in chapter 07.

The text is cut into pieces at places that depend on the text alone, never on how it arrived: before the last whitespace
character of a run that a non-whitespace character follows (every common pre-tokenizer begins a new word there), and
after `MAX_PIECE` characters where no such place comes (text without spaces). A piece is scored once its end is known,
so the last word is held back until the next one begins; `flush` scores the rest.

Each new piece is tokenised together with the last pieces before it. Tokens that stay as they were keep their place in
the cache; if the new text changes the tokens at the seam (two newlines that become one token, a word cut by MAX_PIECE),
the cache is cropped and they are read again. So the tokens read are those of the whole text at once, and the forward
passes are the same for every chunking: scores and decisions are *equal*, not only close. A token that was read and then
replaced still counts towards the risk: text that it stood for has been judged by it.

Cost: one position per token, plus those that a seam changes (none for the lab's tokenizer on ordinary prose), and
MAX_PIECE characters of delay at most.

Deliberately not here: thresholds (`guard.guard_text_stream`), and anything about the generator's tokens.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import StreamClosedError
from ..tokenization import text_ids
from .token_stream import TokenStream

MAX_PIECE = 64  # characters: the longest text that waits for a space
CONTEXT = 64  # characters before a piece that are tokenised with it: longer than any token worth the name
_WORD_BEGINS = re.compile(r"\s(?=\S)")
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ScoredText(NamedTuple):
    """A piece of text, the probabilities of the tokens that it added, and the stream's risk after it. Release it only
    if the risk allows.
    """

    text: str
    scores: list[float]
    risk: float


class Characters:
    """str and bytes deltas in, whole characters out. Bytes are UTF-8; what can never become a character turns into
    U+FFFD.
    """

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._half = ""  # the first half of a surrogate pair, as JSON streams cut it

    def push(self, delta: str | bytes) -> str:
        if isinstance(delta, bytes | bytearray | memoryview):
            return self._join(self._bytes.decode(bytes(delta)), final=False)
        if not isinstance(delta, str):
            raise TypeError(f"a delta is str or bytes, not {type(delta).__name__}")
        # Text after half a character of bytes: that character will never be whole.
        return self._join(self._bytes.decode(b"", final=True) + delta if delta else "", final=False)

    def end(self) -> str:
        return self._join(self._bytes.decode(b"", final=True), final=True)

    def _join(self, text: str, final: bool) -> str:
        if not self._half and text.isascii():
            return text
        text = _SURROGATE_PAIR.sub(
            lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), self._half + text
        )
        self._half = ""
        if not final and "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _SURROGATE.sub("\ufffd", text)


class Pieces:
    """Characters in, pieces out, at the same places for every chunking (see the module's docstring). The pieces join
    back to the text.
    """

    def __init__(self, max_piece: int = MAX_PIECE) -> None:
        self.max_piece = max_piece
        self.held = ""

    def push(self, text: str) -> list[str]:
        text = self.held + text
        pieces, start = list[str](), 0
        while True:
            stop = start + self.max_piece
            # A cut at i needs to see character i + 1, so with `stop` in sight every earlier place has been decided.
            found = _WORD_BEGINS.search(text, start + 1, stop + 1)
            if not found and len(text) <= stop:
                self.held = text[start:]
                return pieces
            cut = found.start() if found else stop
            pieces.append(text[start:cut])
            start = cut

    def end(self) -> str:
        rest, self.held = self.held, ""
        return rest


class TextStream:
    """A token stream behind a tokenizer. `risk` as there; `held`: text that has come in and is not scored yet;
    `token_ids` and `scores` [tokens so far].

    stream: an open TokenStream, owned (closed) by this object. tokenizer: the classifier's own. Raises ValueError if
    there is none. A context manager; any failure closes it and sets `risk` to infinity.
    """

    def __init__(self, stream: TokenStream, tokenizer):
        if tokenizer is None:
            raise ValueError("this classifier has no tokenizer, so it cannot read text; load it with its own")
        self.tokenizer = tokenizer
        self.token_ids: list[int] = []
        self._stream = stream
        self._characters, self._pieces = Characters(), Pieces()
        self._waiting: deque[str] = deque()  # whole pieces that are not scored yet
        self._context: list[str] = []  # the last pieces, and the ids that they have as one text
        self._context_ids: list[int] = []

    @property
    def risk(self) -> float:
        return self._stream.risk

    @property
    def scores(self) -> list[float]:
        return self._stream.scores

    @property
    def held(self) -> str:
        return "".join(self._waiting) + self._pieces.held

    @property
    def closed(self) -> bool:
        return self._stream.closed

    def push(self, delta: str | bytes | None) -> list[ScoredText]:
        """Takes the next characters or UTF-8 bytes (None and "" are fine); returns the pieces that are scored now, in
        order. Raises as TokenStream.push does, TypeError for anything else.
        """
        return list(self.pieces(delta))

    def flush(self) -> list[ScoredText]:
        """The end of the text: scores and returns what was held back."""
        return list(self.pieces(None, final=True))

    def pieces(self, delta: str | bytes | None, final: bool = False) -> Iterator[ScoredText]:
        """`push` (and `flush`, if final) one piece at a time, so that a guard can stop at the first that crosses. It
        works only while it is read.
        """
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        try:
            if delta is not None:
                self._waiting += self._pieces.push(self._characters.push(delta))
            if final:
                self._waiting += self._pieces.push(self._characters.end())
                if rest := self._pieces.end():
                    self._waiting.append(rest)
            while self._waiting:
                scored = self._scored(self._waiting[0])
                self._waiting.popleft()
                yield scored
        except GeneratorExit:
            raise
        except BaseException:
            self._stream.fail()
            raise

    def _scored(self, piece: str) -> ScoredText:
        known = self._context_ids
        ids = text_ids(self.tokenizer, "".join(self._context) + piece)
        same = 0
        while same < len(known) and same < len(ids) and known[same] == ids[same]:
            same += 1
        replaced = known[same:]
        if self._stream.last_ids(len(replaced)) == replaced:
            self._stream.rewind(len(replaced))
            del self.token_ids[len(self.token_ids) - len(replaced) :]
            new = ids[same:]
            self._context.append(piece)
        else:  # the seam reaches back further than is known: read the piece on its own
            new = ids = text_ids(self.tokenizer, piece)
            self._context = [piece]
        scores = self._stream.push(new)
        self.token_ids += new
        self._context_ids = ids
        self._trim()
        return ScoredText(piece, scores, self._stream.risk)

    def _trim(self) -> None:
        """Keeps the tokenisation of a piece from growing with the text."""
        length = sum(map(len, self._context))
        if length <= 4 * CONTEXT:
            return
        while length - len(self._context[0]) >= CONTEXT:
            length -= len(self._context.pop(0))
        self._context_ids = text_ids(self.tokenizer, "".join(self._context))

    def close(self) -> None:
        """Frees the cache. `held` still says what was never scored. May be called twice."""
        self._stream.close()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
