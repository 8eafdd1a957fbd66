"""Stage 7, training: networks trained on one process or many, with checkpoints that survive being killed.

Input: a `Task` (data, network, loss, evaluation), `Settings`, and the `Processes` started by torchrun. Output: a
trained network, a log, checkpoints. Guarantees: a training that is stopped at any moment and started again, on any
number of processes, continues with the very next batch after its last whole checkpoint; on the same number of
processes, on a CPU, it ends with the same bits as without the interruption.

>>> from polyattn.training import Schedule, Settings
>>> Settings(batch=256, micro=32, schedule=Schedule("cosine", warmup_epochs=5)).schedule.factor(5, 90)
1.0
"""

from polyattn.training.averaging import Average
from polyattn.training.checkpoints import Checkpoints
from polyattn.training.commands import configured
from polyattn.training.fit import Trained, fit
from polyattn.training.order import Draw, Micro, Order, seed_of
from polyattn.training.processes import Processes, started
from polyattn.training.schedules import Schedule
from polyattn.training.settings import Settings
from polyattn.training.task import Evaluating, Task

__all__ = [
    "Average",
    "Checkpoints",
    "Draw",
    "Evaluating",
    "Micro",
    "Order",
    "Processes",
    "Schedule",
    "Settings",
    "Task",
    "Trained",
    "configured",
    "fit",
    "seed_of",
    "started",
]
