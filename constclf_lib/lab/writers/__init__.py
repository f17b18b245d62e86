"""Who writes the exchanges: the grammar, a Hugging Face model, an OpenAI-compatible server (writers), and the log that
makes their answers resumable (journal). Built in chapter 01.
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
