"""A command whose text may begin with a minus, as "-5 + 3 = ?"."""

import re
from typing import Any

from typer.core import TyperCommand

FLAG = re.compile(r"--[A-Za-z][\w-]*(=.*)?|-[A-Za-z][\w-]*", re.DOTALL)


class TextCommand(TyperCommand):
    """What does not look like a flag is an argument: no ``--`` is needed before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.sorted(args))

    def sorted(self, args: list[str]) -> list[str]:
        """The flags with their values, then the rest behind ``--``."""
        valued = {
            name for each in self.params if not getattr(each, "is_flag", True) for name in each.opts
        }
        flags, rest, left = list[str](), list[str](), list(args)
        while left and (arg := left.pop(0)) != "--":
            if not FLAG.fullmatch(arg):
                rest.append(arg)
                continue
            flags.append(arg)
            if arg in valued and left:
                flags.append(left.pop(0))
        rest += left
        return [*flags, "--", *rest] if rest else flags
