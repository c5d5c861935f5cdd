"""What a workload takes of each stage, by arithmetic alone: FLOPs, bytes, and workers by role.

Nothing is measured here and nothing is loaded: a config.json is enough.
"""

from epd.sizing.estimate import Estimate, Machine, Workload, estimate
from epd.sizing.items import Clip, Item, Picture, Sound, parse_picture, parse_video
from epd.sizing.shapes import Shapes, read_shapes

__all__ = [
    "Clip",
    "Estimate",
    "Item",
    "Machine",
    "Picture",
    "Shapes",
    "Sound",
    "Workload",
    "estimate",
    "parse_picture",
    "parse_video",
    "read_shapes",
]
