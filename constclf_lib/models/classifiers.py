"""The bodyguards as modules around any Hugging Face causal LM: output, exchange and input classifier.

What it does: `OutputClassifier` keeps the language model whole and adds a second head that reads the same final hidden
state (chapter 03; section 3 of Constitutional Classifiers, arXiv 2501.18837); `InputClassifier` reads its verdict off
the next token (chapter 02). What both share, the language model and how it is read, is in `backbone.py`.

What it deliberately does not do: train, stream, choose thresholds,
or write to disk by itself (`checkpoints.py`, which both classes use, keeps a folder loadable without this library).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import losses
from ..errors import ClassifierError
from ..prompts import (
    VERDICT_WORDS,
    completion_prefix_ids,
    exchange_prefix_ids,
    verdict_prompt_ids,
    verdict_token_ids,
)
from ..tokenization import pad_batch
from . import checkpoints
from .backbone import LanguageModelReader, load_backbone
from .self_check import advice
from .value_head import ValueHead

LOGITS_AT_ONCE, LOGITS_IN_A_CHUNK = 2**28, 2**26  # numbers: a gigabyte, and a quarter of one, in float32


@dataclass
class OutputClassifierOutput:
    """harm_logits [batch, time] float32; lm_logits [batch, time, vocab] or None; past_key_values or None;
    last_hidden_state [batch, time, hidden]; next_token_loss, a scalar or None.

    A plain dataclass: transformers' ModelOutput keeps some field names for itself, and which ones changes.
    """

    harm_logits: Tensor
    lm_logits: Tensor | None
    past_key_values: object | None
    last_hidden_state: Tensor
    next_token_loss: Tensor | None = None


class OutputClassifier(LanguageModelReader):
    """A causal LM with a value head beside its language-modelling head: after every token, the logit that the whole
    completion will be harmful.

    It reads the completion alone, `prefix_ids` + completion; `forward` adds no prefix by itself. harm_logits[:, t] has
    seen token t; lm_logits[:, t] predict token t+1 and are those of the causal LM, to the bit.

    window: the most tokens (prefix included) that a stream should read at once, None for the model's context. Set it to
    the length that was trained; it is saved with the classifier, and streams take it from there (chapter 07).
    """

    kind = "output"
    window: int | None = None
    reads_prompt = False

    def __init__(self, model: nn.Module, tokenizer=None, inner_size: int | None = None, base_rate: float | None = None):
        super().__init__(model, tokenizer)
        self.value_head = ValueHead(self.hidden_size, inner_size, base_rate).to(self.hidden_device)
        self.prefix_ids: list[int] = [] if tokenizer is None else completion_prefix_ids(tokenizer)

    @classmethod
    def from_backbone(cls, name_or_path_or_model, tokenizer=None, inner_size=None, base_rate=None) -> OutputClassifier:
        """A classifier with an untrained head, from the name of a model on a hub, a folder, a GGUF file (its path, or
        owner/repository/file.gguf; needs the package gguf) or a loaded model. A model object (a PeftModel too) is taken
        over, not copied; the others bring their own tokenizer.

        base_rate is the share of harmful sequences in the training data. Raises ValueError for anything but a
        decoder-only causal LM, or for a tokenizer with more tokens than the model has embeddings, ClassifierError for a
        model that cannot be read. Without a tokenizer, set `prefix_ids` yourself if completions stand behind one.
        """
        model, tokenizer = load_backbone(name_or_path_or_model, tokenizer)
        return cls(model, tokenizer, inner_size, base_rate)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values=None,
        use_cache: bool = False,
        with_lm_logits: bool = True,
        next_token_mask: Tensor | None = None,
    ) -> OutputClassifierOutput:
        """input_ids [batch, time] int64; attention_mask and cache as in `read`. with_lm_logits=False skips the product
        with the vocabulary. next_token_mask [batch, time] bool: also the next-token loss at these tokens, in chunks
        where all logits at once would be over a gigabyte.
        """
        hidden, cache = self.read(input_ids, attention_mask, past_key_values, use_cache)
        loss = None if next_token_mask is None else self._next_token_loss(hidden, input_ids, next_token_mask)
        return OutputClassifierOutput(
            harm_logits=self.value_head(hidden),
            lm_logits=self.lm_logits(hidden) if with_lm_logits else None,
            past_key_values=cache,
            last_hidden_state=hidden,
            next_token_loss=loss,
        )

    def _next_token_loss(self, hidden: Tensor, input_ids: Tensor, mask: Tensor) -> Tensor:
        if input_ids.numel() * self.vocab_size <= LOGITS_AT_ONCE:
            return losses.next_token_loss(self.lm_logits(hidden), input_ids, mask)
        rows = max(1, LOGITS_IN_A_CHUNK // self.vocab_size)
        return losses.next_token_loss_in_chunks(self.lm_logits, hidden, input_ids, mask, rows)

    def save_pretrained(self, folder: str | os.PathLike, card: str | None = None) -> None:
        """Writes a folder that AutoModelForCausalLM loads as it is, plus the head: value_head.safetensors and
        classifier.json. Whole or not at all, and only if it loads again (`checkpoints.save`). card: text of README.md.
        """
        settings = {"inner_size": self.value_head.inner.out_features, "prefix_ids": list(self.prefix_ids)}
        settings |= {"window": self.window} if self.window else {}
        checkpoints.save(self, folder, settings, head=self.value_head, card=card)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **load_options) -> OutputClassifier:
        """Loads what `save_pretrained` wrote, in eval mode. load_options (dtype, device_map ...) go to
        AutoModelForCausalLM.

        Raises ClassifierError, saying what to do, if a file is missing, cut short or altered, or if the tokenizer is
        not the one it was trained with.
        """
        record, model, tokenizer = checkpoints.load(folder, cls.kind, **load_options)
        classifier = cls(model, tokenizer, inner_size=record["inner_size"])
        classifier.prefix_ids, classifier.window = list(record["prefix_ids"]), record.get("window")
        checkpoints.load_head(folder, classifier.value_head)
        return classifier.eval()


class ExchangeClassifier(OutputClassifier):
    """An output classifier that reads the prompt before the completion (chapter 10; arXiv 2601.04603, section 3).

    After every token of the completion, the logit that the exchange is harmful: a reply that is harmful only beside its
    question can be told from one that is not. It reads `exchange_prefix_ids(prompt)` + completion, in whatever turns
    its tokenizer's chat template makes of a question and the beginning of an answer.

    window: the most tokens of the *completion* to read at once behind the prompt, which is read again in every window.
    """

    kind = "exchange"
    reads_prompt = True

    def __init__(self, model: nn.Module, tokenizer, inner_size: int | None = None, base_rate: float | None = None):
        if tokenizer is None:
            raise ValueError("an exchange classifier reads the prompt as text, so it needs its tokenizer")
        super().__init__(model, tokenizer, inner_size, base_rate)

    def exchange_prefix_ids(self, prompt: str) -> list[int]:
        """What stands before the completion: the prompt in its turn, and the beginning of the answer."""
        return exchange_prefix_ids(self.tokenizer, prompt)


@dataclass(frozen=True)
class InputScores:
    """One number per prompt, float32 on the CPU. harm: P(harmful) against P(harmless); off_label: probability of every
    other token.
    """

    harm: Tensor
    off_label: Tensor


class InputClassifier(LanguageModelReader):
    """A causal LM whose next token after the prompt is its verdict: " harmful" or " harmless" (chapter 02).
    `verdict_ids` holds their ids, harmful first.

    window: the most tokens (wrapper included) of a prompt to read at once, None for the model's context. Set it to the
    length that was trained; it is saved with the classifier. A longer prompt is read in several windows.
    """

    kind = "input"
    window: int | None = None

    def __init__(self, model: nn.Module, tokenizer, words: tuple[str, str] = VERDICT_WORDS):
        super().__init__(model, tokenizer)
        self.words = (words[0], words[1])
        self.verdict_ids = verdict_token_ids(tokenizer, self.words)

    @classmethod
    def from_backbone(
        cls, name_or_path_or_model, tokenizer=None, words: tuple[str, str] = VERDICT_WORDS
    ) -> InputClassifier:
        """A classifier before its fine-tuning. Raises as OutputClassifier.from_backbone does; ValueError without a
        tokenizer, or if a word is not one token.
        """
        model, tokenizer = load_backbone(name_or_path_or_model, tokenizer)
        if tokenizer is None:
            raise ValueError("an input classifier reads text: pass the tokenizer that belongs to the model")
        return cls(model, tokenizer, words)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, verdict_positions: Tensor | None = None
    ) -> Tensor:
        """Logits of the next token [batch, vocab] at verdict_positions [batch] (default: the last position), the only
        ones computed.
        """
        hidden = self.read(input_ids, attention_mask).last_hidden_state
        if verdict_positions is None:
            verdict_positions = torch.full((len(hidden),), hidden.shape[1] - 1, device=hidden.device)
        rows = torch.arange(len(hidden), device=hidden.device)
        return self.lm_logits(hidden[rows, verdict_positions][:, None])[:, 0]

    @torch.no_grad()
    def score(self, prompts: str | list[str], batch_size: int = 64) -> InputScores:
        """Scores each prompt; an empty one is scored as empty text. A prompt that does not fit the window is read in
        windows that overlap by half, and its scores are the maximum over them: nothing is cut off. Raises TypeError for
        what is not text, ClassifierError if a score is not a finite number.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        rows, owners = [], []
        for owner, prompt in enumerate(prompts):
            for row in self._windows(prompt):
                rows.append(row)
                owners.append(owner)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # equal lengths together: little padding
        if len(rows) > 1 and "padded on the right" in self.not_borne():
            batch_size = 1
        harm, off_label = torch.zeros(len(prompts)), torch.zeros(len(prompts))
        was_training = self.training
        self.eval()
        try:
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                scores = self._score_rows([rows[i] for i in chosen])
                places = torch.tensor([owners[i] for i in chosen])
                harm.scatter_reduce_(0, places, scores.harm, "amax")
                off_label.scatter_reduce_(0, places, scores.off_label, "amax")
        finally:
            self.train(was_training)
        return InputScores(harm, off_label)

    def _score_rows(self, rows: list[list[int]]) -> InputScores:
        input_ids, attention_mask = (t.to(self.device) for t in pad_batch(rows, 0))
        logits = self(input_ids, attention_mask, attention_mask.sum(dim=1) - 1)
        dtype, logits = logits.dtype, logits.float()
        harmful, harmless = (logits[:, i] for i in self.verdict_ids)
        others = logits.index_fill(1, torch.tensor(self.verdict_ids, device=logits.device), -torch.inf)
        # The small share of all other tokens straight from their own sum: 1 - P(harmful) - P(harmless) would lose it to
        # rounding.
        off_label = (others.logsumexp(dim=1) - logits.logsumexp(dim=1)).exp()
        if not torch.stack([harmful, harmless, off_label]).isfinite().all():
            raise ClassifierError(
                "the input classifier gave logits that are not finite numbers; nothing may be released on this score. "
                f"What may help: {advice(dtype)}"
            )
        return InputScores((harmful - harmless).sigmoid().cpu(), off_label.cpu())

    def _windows(self, prompt: str) -> list[list[int]]:
        """Verdict prompts (token ids) that fit the window and cover all of `prompt`, each with the whole wrapper
        around its stretch of text.
        """
        row = verdict_prompt_ids(self.tokenizer, prompt)
        limit = min((n for n in (self.window, self.context_length) if n is not None), default=None)
        if limit is None or len(row) <= limit:
            return [row]
        rows, start, size = [], 0, len(prompt)
        while start < len(prompt):
            size = min(max(size, 1), len(prompt) - start)
            while len(row := verdict_prompt_ids(self.tokenizer, prompt[start : start + size])) > limit:
                if size == 1:
                    raise ClassifierError(f"one character of the prompt does not fit a window of {limit} tokens")
                size = min(size - 1, max(1, int(size * limit / len(row))))
            rows.append(row)
            if start + size >= len(prompt):
                break
            start += max(1, size // 2)
            size *= 2  # denser text may have made this window short; let the next one try more
        return rows

    def save_pretrained(self, folder: str | os.PathLike, card: str | None = None) -> None:
        """Writes a folder that AutoModelForCausalLM and AutoTokenizer load as it is, plus classifier.json. Whole or not
        at all, and only if it loads again (`checkpoints.save`). card: text of README.md.
        """
        settings: dict = {"words": list(self.words), "verdict_ids": list(self.verdict_ids)}
        settings |= {"window": self.window} if self.window else {}
        checkpoints.save(self, folder, settings, card=card)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **load_options) -> InputClassifier:
        """Loads what `save_pretrained` wrote, in eval mode. Raises ClassifierError as OutputClassifier.from_pretrained
        does.
        """
        record, model, tokenizer = checkpoints.load(folder, cls.kind, **load_options)
        classifier = cls(model, tokenizer, tuple(record["words"]))
        classifier.window = record.get("window")
        return classifier.eval()
