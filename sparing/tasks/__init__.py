"""Problems, graders, data sets: what a model is asked, and whether its answer is right.

``wording`` is a function here and a module beside it: the import below must come first, so that
nobody finds the module under that name. Nothing here imports reasoning-gym, which takes a second.
"""

from sparing.tasks.families import FAMILIES, Family
from sparing.tasks.problem import Problem, Task
from sparing.tasks.wording import key, wording

__all__ = ["FAMILIES", "Family", "Problem", "Task", "key", "wording"]
