"""Who writes the exchanges, and the log that makes a language model's answers resumable. Built in chapter 01.

writers (the grammar, a Hugging Face model, an OpenAI-compatible server), journal (the log, and what answers amount to).
"""

from .journal import AnswerLog, Harvest, Request, fault, parse_exchange
from .writers import (
    Answer,
    GrammarWriter,
    HuggingFaceWriter,
    LanguageModelWriter,
    OpenAIWriter,
    WriterError,
    requests_for,
    to_frame,
)

__all__ = [
    "Answer",
    "AnswerLog",
    "GrammarWriter",
    "Harvest",
    "HuggingFaceWriter",
    "LanguageModelWriter",
    "OpenAIWriter",
    "Request",
    "WriterError",
    "fault",
    "parse_exchange",
    "requests_for",
    "to_frame",
]
