"""Which replies this process has released: a client sends them back with its next message. Built in chapter 08.

A history is the client's word, so every message of it is judged. But an input classifier was trained on requests; read
as requests, harmless replies get a conversation blocked (benchmarks/joined_turns.py). What was released here has been
judged once, token by token, so it is known again by its hash and not judged as a request. Any other text, also one that
differs by a word or comes from another process, is judged.

Deliberately not here: texts (hashes only, under a key that ends with the process), and anything that outlives it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from typing import Any

from ..guard import Reply, history_after

MOST = 1 << 16  # replies; the oldest is forgotten first, and then judged


class Released:
    """Not for several threads: the endpoint calls it from its event loop."""

    def __init__(self, most: int = MOST):
        self._key, self._most = secrets.token_bytes(32), most
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def add(self, reply: Reply) -> None:
        """Remembers what a client may keep of this reply: what it was shown, with the refusal or without."""
        for text in {reply.released_text, reply.shown_text, history_after(reply)}:
            if text.strip():
                self._known[self._hash(text)] = None
        while len(self._known) > 3 * self._most:
            self._known.popitem(last=False)

    def mark(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, those of the assistant that are known with `released: True` (`prompts.texts_to_judge`)."""
        return [
            {**message, "released": True}
            if message["role"] == "assistant" and self._hash(message["content"]) in self._known
            else message
            for message in messages
        ]

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()
