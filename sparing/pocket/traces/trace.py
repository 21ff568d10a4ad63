"""A trace: the thinking and the answer to one question, in pieces that are taught or only shown."""

from dataclasses import dataclass, field

from sparing.model.chat import THINK, THINK_END
from sparing.train.examples import Piece


@dataclass
class Trace:
    """Grows while a writer thinks; a mistake is shown and not taught, what mends it is taught."""

    pieces: list[Piece] = field(default_factory=list)
    answer: str = ""

    def say(self, text: str) -> None:
        self.pieces.append(Piece(text))

    def slip(self, text: str) -> None:
        """A mistake that the next words take back."""
        self.pieces.append(Piece(text, taught=False))

    def recall(self, text: str) -> None:
        """Something said once, long before, and looked up now."""
        self.pieces.append(Piece(text, recall=True))

    @property
    def thinking(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def response(self) -> list[Piece]:
        """The whole reply: the thought between its markers, then the answer."""
        opening, closing = Piece(f"{THINK}\n"), Piece(f"{THINK_END}\n\n{self.answer}")
        return [opening, *self.pieces, closing]
