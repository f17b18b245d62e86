"""Token ids to text that may go out: whole characters, stop sequences. Built in chapter 08.

Deliberately not here: which token comes next (turn.py, batch.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..tokenization import decode_text


class Detokenizer:
    """Token ids in, whole characters out: what a token adds to the text, or "" while a character is incomplete. The
    pieces join to the text of all ids.
    """

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self._shown: list[int] = []  # ids whose text is out; they decide how the next ones are spaced
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        self._held.append(token_id)
        return self._text(final=False)

    def flush(self) -> str:
        """What is left, an incomplete character as U+FFFD."""
        return self._text(final=True) if self._held else ""

    def _text(self, final: bool) -> str:
        known = decode_text(self.tokenizer, self._shown)
        text = decode_text(self.tokenizer, self._shown + self._held)
        if not final and (len(text) <= len(known) or text.endswith("\ufffd")):
            return ""
        self._shown, self._held = self._held, []
        return text[len(known) :]


class StopSequences:
    """Text in, text that may go out; a beginning of a stop sequence is held back until it is known not to be one.
    `found` is set once one is complete.
    """

    def __init__(self, sequences: Sequence[str]):
        self.sequences = tuple(sequences)
        self.found = False
        self._held = ""

    def push(self, text: str) -> str:
        if not self.sequences or self.found:
            return "" if self.found else text
        self._held += text
        starts = [at for stop in self.sequences if (at := self._held.find(stop)) >= 0]
        if starts:
            self.found = True
            out, self._held = self._held[: min(starts)], ""
            return out
        keep = max(
            (n for stop in self.sequences for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0
        )
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def flush(self) -> str:
        out, self._held = self._held, ""
        return out


def pieces(tokenizer, ids: Sequence[int]) -> list[str]:
    """The text of `ids`, one piece per id. A character spread over several ids comes out whole, with its last one."""
    detokenizer = Detokenizer(tokenizer)
    texts = [detokenizer.push(token) for token in ids]
    if texts:
        texts[-1] += detokenizer.flush()
    return texts
