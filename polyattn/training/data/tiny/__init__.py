"""Tiny data sets in the true forms, for trial runs of a recipe: bright shapes on noise, the same bits each time."""

from polyattn.training.data.tiny.folders import image_folder
from polyattn.training.data.tiny.instances import coco, wider
from polyattn.training.data.tiny.videos import clips

__all__ = ["clips", "coco", "image_folder", "wider"]
