"""`constclf serve`: a guard as an OpenAI-compatible server (app), what it speaks (protocol), what stands behind it
(backend), what it has released (released), a guardrail for other proxies (guardrail), the command (command). Needs the
extra `serve`, though not before a name of it is used: without it, the command says what to install.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app as create_app
    from .backend import Backend as Backend

__all__ = ["Backend", "create_app"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(".backend" if name == "Backend" else ".app", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
