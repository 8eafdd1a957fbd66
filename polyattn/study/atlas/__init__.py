"""The atlas: layers, which of them is a special case of which, each edge with its proof; as data and as one page."""

from polyattn.study.atlas.build import Atlas, Edge, Layer, build
from polyattn.study.atlas.page import write_page

__all__ = ["Atlas", "Edge", "Layer", "build", "write_page"]
