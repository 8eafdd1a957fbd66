"""Stage 6, vision: attention in existing networks, and the papers' networks.

Input: any `torch.nn.Module`, the names of submodules whose output is one tensor (B, C, *spatial), and specifications
or modules. Output: the same network, in place. Guarantees: the network's own parameters keep their names, so
its checkpoints load before or after; a refused call leaves the network unchanged; the network compiles, exports, copies
and pickles as before; and `remove` undoes `insert`.

The builders (`resnet50` and the rest) return torchvision's and timm's networks with the papers' blocks in the papers'
places. `import polyattn.vision.registry` registers them in timm and in torchvision.
"""

from polyattn.vision.backbone import load_backbone
from polyattn.vision.cost import Cost, cost
from polyattn.vision.counters import fvcore_handles, thop_ops
from polyattn.vision.detection import face_retinanet_resnet50_fpn, mask_rcnn_resnet50_fpn
from polyattn.vision.inflate import inflate
from polyattn.vision.insert import insert, remove
from polyattn.vision.named import NAMES
from polyattn.vision.places import places_of
from polyattn.vision.resnets import resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, seresnet50
from polyattn.vision.seeing import Norms, bat_map, bat_maps, grad_cam, norms, overlay
from polyattn.vision.video import c2d_resnet50, c2d_resnet101, i3d_resnet50, i3d_resnet101

__all__ = [
    "NAMES",
    "Cost",
    "Norms",
    "bat_map",
    "bat_maps",
    "c2d_resnet50",
    "c2d_resnet101",
    "cost",
    "face_retinanet_resnet50_fpn",
    "fvcore_handles",
    "grad_cam",
    "i3d_resnet50",
    "i3d_resnet101",
    "inflate",
    "insert",
    "load_backbone",
    "mask_rcnn_resnet50_fpn",
    "norms",
    "overlay",
    "places_of",
    "remove",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "seresnet50",
    "thop_ops",
]
