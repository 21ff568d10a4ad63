"""Think markers: the start and the end of a thought."""

from dataclasses import dataclass
from typing import Any

from sparing.errors import OptionError

# Start and end of a thought; the first pair in a model's vocabulary or template counts.
THINK, THINK_END = "<think>", "</think>"  # in most models, and in all models trained here
KNOWN_MARKERS = (
    (THINK, THINK_END),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
)
MARKED = "{{# thinks between {} and {} #}}"  # a comment for a template; it renders to nothing


@dataclass(frozen=True)
class Markers:
    """The start and end of a thought, each as text and as one or more token ids."""

    start: str
    end: str
    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]

    def next(self, thinking: bool) -> tuple[str, tuple[int, ...]]:
        """The marker that comes next, inside a thought or outside, and its ids."""
        return (self.end, self.end_ids) if thinking else (self.start, self.start_ids)

    def left_open(self, text: str) -> bool:
        """Whether the text ends inside a thought."""
        return text.rfind(self.start) > text.rfind(self.end)

    def without_begun(self, part: str, thought: bool) -> str:
        """A part of the text without an end that may be the beginning of the next marker."""
        if thought and self.start.startswith(part.strip()):
            return ""
        marker = self.end if thought else self.start
        sizes = range(min(len(marker) - 1, len(part)), 0, -1)
        held = next((size for size in sizes if part.endswith(marker[:size])), 0)
        return part[: len(part) - held]


def known_markers(tokenizer: Any) -> tuple[str, str] | None:
    """The first known pair in the vocabulary, else in the template."""
    vocabulary = tokenizer.get_vocab()
    template = str(tokenizer.chat_template or "")
    for pair in KNOWN_MARKERS:
        if all(marker in vocabulary for marker in pair):
            return pair
    for pair in KNOWN_MARKERS:
        if pair[1] in template:
            return pair
    return None


def mark_thoughts(tokenizer: Any) -> None:
    """Note the think markers in the template of a model about to learn them, if it has none.

    The rendered text does not change; `known_markers` finds the pair at the next load.
    """
    if known_markers(tokenizer) is None and isinstance(tokenizer.chat_template, str):
        template = tokenizer.chat_template.removesuffix("\n")  # Jinja ignores the last newline
        tokenizer.chat_template = template + MARKED.format(THINK, THINK_END)


def unmarked(model: str, advice: str) -> OptionError:
    """The refusal of a limit on thinking."""
    return OptionError(
        f"think_budget needs a model that marks its thoughts, and {model} does not; {advice}"
    )


def check_markers(pair: Any) -> None:
    """Raise OptionError unless ``pair`` is the start and the end of a thought, or None."""
    two = isinstance(pair, tuple) and len(pair) == 2
    texts = two and all(isinstance(marker, str) and marker for marker in pair)
    if pair is not None and not (texts and pair[0] != pair[1]):
        raise OptionError(
            f"markers must be two different strings, a thought's start and end, got {pair!r}"
        )
