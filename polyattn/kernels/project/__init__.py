"""`project` and `project_pair`: rows times matrices, scaled or two at once, in one pass."""

from polyattn.kernels.project.op import project, project_pair

__all__ = ["project", "project_pair"]
