"""Tiny stand-ins for the tests of the runtime: random models of a few thousand weights, and scripted ones whose every
step is known.
"""

from __future__ import annotations

import functools
import weakref
from types import SimpleNamespace

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from constclf_lib.lab import as_assistant, train_tokenizer
from constclf_lib.models import InputClassifier, OutputClassifier, Reading, Seen
from constclf_lib.prompts import ASSISTANT, END, NOTE, chat_id
from constclf_lib.tokenization import fingerprint, text_ids

PROSE = (
    "The ash moth sleeps near the old lantern. Grind the ashbane, warm it over coals, and wait!\n"
    'A warden asks: "who keeps the key?" Nobody (so they say) has seen it since the frost. '
)


@functools.cache
def lab_tokenizer():
    return as_assistant(train_tokenizer([PROSE] * 20, 400))


def causal_lm(kind: str = "llama", context: int = 256, seed: int = 0, vocab: int = 400):
    torch.manual_seed(seed)
    sizes = {"vocab_size": vocab, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": context}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes, **heads, **ends)).eval()
    if kind == "mistral":  # a sliding window of 8: its cache cannot be cropped once it is full
        return MistralForCausalLM(MistralConfig(**sizes, **heads, **ends, sliding_window=8)).eval()
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=context, **ends)
    ).eval()


def output_classifier(kind: str = "llama", context: int = 256, seed: int = 0, tokenizer=None, prefix=()):
    """A random output classifier whose probabilities vary widely from token to token."""
    tokenizer = tokenizer or lab_tokenizer()
    classifier = OutputClassifier.from_backbone(causal_lm(kind, context, seed, len(tokenizer)), tokenizer).eval()
    torch.nn.init.normal_(classifier.value_head.out.weight, std=3.0)
    classifier.prefix_ids = list(prefix)
    return classifier


class PositionCounter:
    """Counts the token positions that a module is asked to compute."""

    def __init__(self, module):
        self.count, self.passes = 0, 0
        self._handle = module.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        self.count += kwargs["input_ids"].numel()
        self.passes += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._handle.remove()


class FakeCache:
    """What a scripted model hands back as its cache. `alive` holds the caches that someone still keeps."""

    alive: weakref.WeakSet = weakref.WeakSet()

    def __init__(self):
        self.ids: list[int] = []
        self.alive.add(self)

    def crop(self, count: int):
        self.ids = self.ids[:count]


class _Scripted(torch.nn.Module):
    """Calls `fail_at[step]` (a function) before its step-th pass since `restart`, and returns what it gives unless
    None.
    """

    def __init__(self):
        super().__init__()
        self.device = torch.device("cpu")
        self.restart()

    def restart(self, fail_at=None):
        self.steps, self.fail_at, self.seen = 0, fail_at or {}, []

    def _failure(self):
        step, self.steps = self.steps, self.steps + 1
        return self.fail_at[step]() if step in self.fail_at else None


class WordClassifier(_Scripted):
    """An output classifier that knows what it thinks of every token: logit 3 for `harmful` ids, -3 for others. `seen`:
    every id it was asked about.
    """

    def __init__(self, tokenizer, harmful=(), context=10_000):
        super().__init__()
        self.tokenizer, self.fingerprint, self.harmful = tokenizer, fingerprint(tokenizer), set(harmful)
        self.prefix_ids, self.context_length = [], context
        self.vocab_size = len(tokenizer)

    @property
    def backbone(self):
        return self

    def read(self, input_ids, attention_mask=None, cache=None, use_cache=False):
        bad = self._failure()
        self.seen += input_ids[0].tolist()
        logits = torch.tensor([[3.0 if i in self.harmful else -3.0 for i in input_ids[0].tolist()]])
        if bad is not None:
            logits[0, -1] = bad
        return Reading(logits, cache or FakeCache())

    def value_head(self, hidden):
        return hidden

    def check_streaming(self):
        return Seen(chunks=True, padding=False, pauses=False, rewinding=True, padding_token=True)


class ScriptedAssistant(_Scripted):
    """A causal LM that writes the given ids one after the other, whatever it reads."""

    def __init__(self, tokenizer, ids, context=10_000):
        super().__init__()
        self.ids, self.vocab = list(ids), len(tokenizer)
        self.config = SimpleNamespace(max_position_embeddings=context)
        self.config.get_text_config = lambda: self.config
        self.generation_config = SimpleNamespace(eos_token_id=tokenizer.eos_token_id)

    def forward(self, input_ids, past_key_values=None, use_cache=True):
        at = self.steps
        bad = self._failure()
        self.seen += input_ids[0].tolist()
        logits = torch.full((1, 1, self.vocab), -20.0)
        logits[0, 0, self.ids[at]] = 20.0
        if bad is not None:
            logits[0, 0, 0] = bad
        return SimpleNamespace(logits=logits, past_key_values=past_key_values or FakeCache())


class FixedInput(_Scripted):
    """An input classifier that always says the same. `seen`: the prompts."""

    def __init__(self, harm=0.1, off_label=0.0):
        super().__init__()
        self.harm, self.off_label = harm, off_label

    def score(self, prompts):
        bad = self._failure()
        self.seen += prompts
        return SimpleNamespace(
            harm=torch.tensor([self.harm if bad is None else bad]), off_label=torch.tensor([self.off_label])
        )


def lab_script(text: str, note: str = "a note", end: str = END) -> list[int]:
    """The ids that a lab assistant would write for this reply: note, `<|assistant|>`, text, control token."""
    tokenizer = lab_tokenizer()
    assert NOTE != ASSISTANT
    return [
        *text_ids(tokenizer, note),
        chat_id(tokenizer, ASSISTANT),
        *text_ids(tokenizer, text),
        chat_id(tokenizer, end),
    ]


@functools.cache
def foreign_tokenizer(kind: str):
    """Tokenizers as they are found in the wild, trained on a few lines: what differs is where they cut and what they
    merge.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    bpe = functools.partial(trainers.BpeTrainer, special_tokens=special, show_progress=False)
    if kind == "byte_level":  # GPT-2
        tokenizer, trainer = (
            Tokenizer(models.BPE()),
            bpe(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    elif kind == "llama3":  # line breaks join what stands before them
        pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        tokenizer, trainer = (
            Tokenizer(models.BPE()),
            bpe(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
        )
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
    elif kind in ("metaspace", "metaspace_first"):
        tokenizer, trainer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True)), bpe(vocab_size=300)
        scheme = "first" if kind == "metaspace_first" else "always"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    elif kind == "llama2":  # no pre-tokenizer at all: one run of characters, merged anywhere
        tokenizer, trainer = Tokenizer(models.BPE(unk_token="<unk>")), bpe(vocab_size=300)
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?<=[^▁])(?=▁)"), "isolated")  # for training only
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    elif kind == "unigram":  # T5, with Unicode normalisation: a combining mark changes the letter before it
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:  # WordPiece, as BERT: lower case, accents stripped, spaces gone
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator([PROSE, PROSE + "naïve café 你好世界 🐛 wait!\n\n"] * 20, trainer)
    if kind == "llama2":
        tokenizer.pre_tokenizer = None
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


FOREIGN = ["byte_level", "llama3", "metaspace", "metaspace_first", "llama2", "unigram", "wordpiece"]


def llama(vocab_size=300, seed=0, context=128, **more) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=context, tie_word_embeddings=True, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tiny_lab():
    """A tokenizer, an assistant that writes notes and replies of various lengths, and two untrained bodyguards."""
    tokenizer = as_assistant(train_tokenizer(["the quick ash bane sleeps", "crème brûlée 🦊 of the north"], 300))
    assistant = llama(len(tokenizer), seed=3, initializer_range=0.3)
    assistant.lm_head.weight = torch.nn.Parameter(torch.randn(len(tokenizer), 32))
    for token, factor in ((ASSISTANT, 2.5), (END, 1.8)):  # so that notes and replies do end
        assistant.lm_head.weight.data[chat_id(tokenizer, token)] *= factor
    torch.manual_seed(5)
    output = OutputClassifier.from_backbone(llama(len(tokenizer), seed=1), tokenizer).eval()
    torch.nn.init.normal_(output.value_head.out.weight, std=3.0)
    return SimpleNamespace(
        tokenizer=tokenizer,
        assistant=assistant,
        input=InputClassifier.from_backbone(llama(len(tokenizer), seed=2), tokenizer),
        output=output,
        prompts=[f"{word} the ash" * n for n, word in enumerate(["hm", "who", "quick", "🦊", "brûlée", "sleep"], 1)],
    )
