"""A guarded model for inspect-ai: `inspect eval task.py --model constclf/lab`. Built in chapter 08.

The name behind the slash is "lab" or a folder that GuardedModel.save_pretrained wrote; `-M guarded=false` asks neither
classifier, which is the control of every evaluation. What the guard blocks or halts has stop_reason "content_filter"
and the refusal in its text; nothing that was withheld is in the log.

Deliberately not here: tools (refused), and choices beyond one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo

from ..guard import BatchedGuard, GuardedModel, Reply


@modelapi(name="constclf")
class GuardedAPI(ModelAPI):
    """inspect-ai's ModelAPI around a GuardedModel. guarded: whether the classifiers are asked. guard: a GuardedModel to
    use in place of the one that the name means. judged_roles: as there; in an evaluation, whoever writes the task
    writes the system prompt, so the user's messages alone by default.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 as inspect-ai does
        guarded: bool = True,
        guard: GuardedModel | None = None,
        **options: Any,
    ):
        super().__init__(model_name, base_url, api_key, [], config)
        if guard is None:
            guard = (
                GuardedModel.from_lab(**options)
                if model_name == "lab"
                else GuardedModel.from_pretrained(model_name, **options)
            )
        self.guarded = guarded
        self._guard: GuardedModel | BatchedGuard = BatchedGuard(guard) if BatchedGuard.serves(guard) else guard

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One reply. Raises ValueError for tools or more than one choice."""
        if tools or (config.num_choices or 1) != 1:
            raise ValueError("a guarded model serves no tools and one choice")
        messages = [{"role": message.role, "content": message.text} for message in input]
        options: dict[str, Any] = {
            "max_new_tokens": config.max_tokens or 512, "temperature": config.temperature or 0.0,
            "seed": config.seed or 0, "stop": tuple(config.stop_seqs or ()), "guard": self.guarded,
        }  # fmt: skip
        events = self._guard.astream(messages, **options)
        try:
            reply = None
            async for event in events:
                reply = event
        finally:
            await events.aclose()
        assert isinstance(reply, Reply)
        return self._output(reply)

    def _output(self, reply: Reply) -> ModelOutput:
        written = len(reply.tokens) + reply.note_tokens
        if reply.status == "error":
            too_long = reply.error_kind == "context_length_exceeded"
            output = ModelOutput.from_content(
                self.model_name, "", "model_length" if too_long else "unknown", error=reply.error_kind
            )
        else:
            stop = (
                "content_filter" if reply.status != "released" else "max_tokens" if reply.finish == "length" else "stop"
            )
            output = ModelOutput.from_content(self.model_name, reply.shown_text, stop)  # type: ignore[arg-type]
        output.usage = ModelUsage(
            input_tokens=reply.prompt_tokens, output_tokens=written, total_tokens=reply.prompt_tokens + written,
            reasoning_tokens=reply.note_tokens,
        )  # fmt: skip
        output.metadata = {"status": reply.status}
        return output

    async def aclose(self) -> None:
        """Ends the guard's thread."""
        if isinstance(self._guard, BatchedGuard):
            await asyncio.to_thread(self._guard.close)
