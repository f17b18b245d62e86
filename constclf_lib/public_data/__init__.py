"""Public moderation data as frames that the trainers take: one small adapter per schema, labels that nobody gave left
unknown. docs/public_data.md says what each label means and under which licence the texts stand.
"""

from .schemas import COLUMNS, aegis, beaver_tails, openai_moderation, surge_toxicity, toxic_chat, xstest, xstest_replies
from .sources import SOURCES, Source, known, load_public

__all__ = [
    "COLUMNS",
    "SOURCES",
    "Source",
    "aegis",
    "beaver_tails",
    "known",
    "load_public",
    "openai_moderation",
    "surge_toxicity",
    "toxic_chat",
    "xstest",
    "xstest_replies",
]
