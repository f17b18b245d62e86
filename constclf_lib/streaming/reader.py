"""How streams read an output classifier: its tokens checked, its window, one forward pass. Built in chapter 07.

Deliberately not here: the state of a stream (token_stream.py, batch_stream.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch

from ..errors import ClassifierError
from ..models import ValueHead
from ..tokenization import fingerprint
from .stop_rules import RunningMax


class Reader:
    """One output classifier as streams read it. Holds no state of any stream.

    classifier: models.OutputClassifier, put into eval mode (dropout would make every score a dice throw). rule: a stop
    rule, RunningMax() if None; each stream gets a fresh copy. device: moves the classifier there if given.
    step_timeout: seconds one push may take, None for no limit (see `within`). window: the most tokens to read at once,
    None for the classifier's own window, or else the model's context; a classifier judges best in windows of the length
    that it was trained on (chapter 07). Raises ValueError if that leaves no room for the prefix and two tokens,
    ClassifierError for a backbone that was seen to read a stream otherwise than in one pass.
    """

    def __init__(
        self, classifier, rule=None, device=None, step_timeout: float | None = None, window: int | None = None
    ):
        self.classifier = (classifier if device is None else classifier.to(device)).eval()
        head = classifier.value_head
        self.head = head.direct() if type(head) is ValueHead else head
        self.rule = RunningMax() if rule is None else rule
        self.step_timeout = step_timeout
        self.vocab_size = classifier.vocab_size
        self.reads_prompt = getattr(classifier, "reads_prompt", False)
        self._window = getattr(classifier, "window", None) if window is None else window
        self.room(list(classifier.prefix_ids))  # a window without room is found here, not in service
        self.never = None if self.ready().padding_token else classifier.padding_token  # an id that is no text

    def ready(self):
        """What the backbone was seen to bear where it stands now (models.Seen). Every stream asks when it is opened:
        someone may have trained or moved the classifier since. Raises ClassifierError if it bears no stream at all.
        """
        if self.classifier.training:
            self.classifier.eval()
        return self.classifier.check_streaming()

    @property
    def device(self) -> torch.device:
        return self.classifier.device

    def check_fingerprint(self, other: str) -> None:
        """Raises ValueError unless `other` is the fingerprint of the classifier's tokenizer: ids of another one would
        be scored as different words.
        """
        own = self.classifier.fingerprint
        if own != other:
            raise ValueError(
                f"these token ids come from another tokenizer (fingerprint {other}, the classifier's is {own}); "
                "guard the text instead: open_text() or guard_text_stream()"
            )

    def check_tokenizer(self, tokenizer) -> None:
        """Raises ValueError unless the ids of this tokenizer mean the same to the classifier."""
        self.check_fingerprint(fingerprint(tokenizer))

    def check_ids(self, token_ids: Iterable[int]) -> list[int]:
        """The ids as a list. Raises ValueError for an id outside the vocabulary (on a GPU it would take the whole
        process down), or for a padding token that the backbone was seen to take for padding wherever it stands.
        """
        ids = token_ids.tolist() if isinstance(token_ids, torch.Tensor) else list(token_ids)
        if ids and not (0 <= min(ids) and max(ids) < self.vocab_size):
            raise ValueError(f"token ids must lie in [0, {self.vocab_size}); got {min(ids)} to {max(ids)}")
        if self.never in ids:
            raise ValueError(f"token {self.never} is padding to this backbone and cannot be read as text; leave it out")
        return ids

    def prefix_of(self, prompt: str | None) -> list[int]:
        """What a completion stands behind: the classifier's prefix, and for an exchange classifier the prompt.

        Raises ValueError for an exchange classifier that is given no prompt.
        """
        if not self.reads_prompt:
            return list(self.classifier.prefix_ids)
        if prompt is None:
            raise ValueError("an exchange classifier reads the prompt too: open(prompt=...)")
        return self.classifier.exchange_prefix_ids(prompt)

    def room(self, prefix: list[int]) -> int:
        """Tokens of a completion that are read at once behind `prefix`. An exchange classifier's window counts the
        completion alone. Raises ValueError for less than two.
        """
        context, window = self.classifier.context_length, self._window
        if window is not None and self.reads_prompt:
            window += len(prefix)
        limit = min((n for n in (window, context) if n is not None), default=None)
        room = sys.maxsize if limit is None else limit - len(prefix)
        if room < 2:
            raise ValueError(
                f"a window of {limit} tokens leaves no room for a completion behind a prefix of {len(prefix)}"
            )
        return room

    def windows(self, count: int, room: int | None = None) -> list[tuple[int, int, int]]:
        """(start, first new, end) of the windows in which a stream of `count` tokens is read; see `scorer.py`. room: as
        `room` gives it, None for the classifier's own prefix.
        """
        room = self.room(list(self.classifier.prefix_ids)) if room is None else room
        found = [(0, 0, min(count, room))]
        while found[-1][2] < count:
            new = found[-1][2]
            start = new - room // 2
            found.append((start, new, min(count, start + room)))
        return found

    def read(self, input_ids: torch.Tensor, cache, attention_mask: torch.Tensor | None = None):
        """(cache, harm logits [rows, time]) after input_ids [rows, time]. The classifier's forward without its output
        object, which at one token a pass costs as much as the head. Raises ClassifierError if there is no cache.
        """
        hidden, cache = self.classifier.read(input_ids, attention_mask, cache, use_cache=True)
        if cache is None:
            backbone = type(self.classifier.backbone).__name__
            raise ClassifierError(f"{backbone} returned no cache; a stream cannot be scored with it")
        return cache, self.head(hidden)
