"""Tiny data sets in the true forms, for trying a recipe: bright shapes on noise, the same bits each time."""

from polyattn.training.data.tiny.folders import image_folder

__all__ = ["image_folder"]
