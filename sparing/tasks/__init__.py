"""Tasks: problems, data sets and graders.

``wording`` is the name of a function and of its module; the import below makes it the function.
Nothing here imports reasoning-gym, which takes a second.
"""

from sparing.tasks.families import FAMILIES, Family
from sparing.tasks.problem import Problem, Task
from sparing.tasks.wording import key, wording

__all__ = ["FAMILIES", "Family", "Problem", "Task", "key", "wording"]
