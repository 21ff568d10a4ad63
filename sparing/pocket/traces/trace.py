"""A trace: the thinking and the answer to one question, in taught and shown pieces."""

from dataclasses import dataclass, field

from sparing.model.markers import THINK, THINK_END
from sparing.train.examples import Piece


@dataclass
class Trace:
    """A trace in progress; a mistake is only shown, its correction is taught."""

    pieces: list[Piece] = field(default_factory=list)
    answer: str = ""

    def say(self, text: str) -> None:
        self.pieces.append(Piece(text))

    def slip(self, text: str) -> None:
        """Add a mistake, corrected by the next words."""
        self.pieces.append(Piece(text, taught=False))

    def recall(self, text: str) -> None:
        """Add a text copied from far back."""
        self.pieces.append(Piece(text, recall=True))

    @property
    def thinking(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def response(self) -> list[Piece]:
        """The whole reply: the thought between its markers, then the answer."""
        opening, closing = Piece(f"{THINK}\n"), Piece(f"{THINK_END}\n\n{self.answer}")
        return [opening, *self.pieces, closing]
