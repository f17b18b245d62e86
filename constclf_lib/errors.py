"""What can go wrong, by name. Whoever guards with this library catches these; nothing here imports anything."""

from __future__ import annotations


class ClassifierError(RuntimeError):
    """A classifier cannot be loaded, or cannot give a score that can be trusted. Whoever guards with it must release
    nothing.
    """


class ClassifierTimeout(ClassifierError):
    """A call took longer than its time limit."""


class StreamClosedError(RuntimeError):
    """A push on a stream that was closed or has failed. Open a new one."""


class GenerationError(RuntimeError):
    """The assistant cannot go on: a prompt longer than its context, or logits that are no numbers."""


class PromptTooLongError(GenerationError):
    """A prompt that leaves no room in the assistant's context, or is longer than its limit. Nothing is ever cut."""
