"""`constclf serve`: a guard as an OpenAI-compatible server (app), what it speaks (protocol), what stands behind it
(backend), a guardrail for other proxies (guardrail), the command (command). Needs the extra `serve`.
"""

from .app import create_app
from .backend import Backend

__all__ = ["Backend", "create_app"]
