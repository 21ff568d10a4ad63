"""What comes over the wire, put together again."""

from typing import Any

QUESTION = "What is 382 - 197 + 415 - 868 + 250?"
ASKED = {"model": "pocket", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


class Streamed:
    """The chunks of a stream, by choice."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks
        self.usage = next((chunk.usage for chunk in chunks if chunk.usage), None)
        self.choices = [choice for chunk in chunks for choice in chunk.choices]
        self.indices = sorted({choice.index for choice in self.choices})

    @property
    def content(self) -> list[str]:
        return self._joined("content")

    @property
    def thinking(self) -> list[str]:
        return self._joined("reasoning_content")

    @property
    def texts(self) -> list[str]:
        """Of completions."""
        return ["".join(c.text for c in self.choices if c.index == i) for i in self.indices]

    @property
    def reasons(self) -> list[str]:
        """Why each choice ended, told once."""
        return [c.finish_reason for c in self.choices if c.finish_reason]

    @property
    def logprobs(self) -> list[Any]:
        return [t for c in self.choices if c.logprobs for t in c.logprobs.content]

    @property
    def thought_logprobs(self) -> list[Any]:
        parts = [c.logprobs.reasoning_content for c in self.choices if c.logprobs]
        return [t for part in parts for t in part or ()]

    def _joined(self, name: str) -> list[str]:
        parts = [(c.index, getattr(c.delta, name, None) or "") for c in self.choices]
        return ["".join(text for index, text in parts if index == i) for i in self.indices]
