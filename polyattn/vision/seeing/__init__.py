"""Visualising attention: its maps over the image, as arrays and figures."""

from polyattn.vision.seeing.figures import overlay
from polyattn.vision.seeing.maps import bat_map, bat_maps
from polyattn.vision.seeing.norms import Norms, norms
from polyattn.vision.seeing.saliency import grad_cam

__all__ = ["Norms", "bat_map", "bat_maps", "grad_cam", "norms", "overlay"]
