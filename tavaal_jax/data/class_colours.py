"""Colours in which label maps are drawn."""

from collections.abc import Sequence

import numpy as np

# The colours of Cityscapes' classes, which other street scenes have as well.
_USUAL = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}


def palette(class_names: Sequence[str]) -> np.ndarray:
    """Colours of a map's values, uint8 `[256, 3]`: the usual one of a name; black for no class."""
    random = np.random.RandomState(0)
    colours = np.zeros((256, 3), np.uint8)
    for number, name in enumerate(class_names):
        drawn = random.randint(0, 256, 3)
        colours[number] = _USUAL.get(name, drawn)
    return colours
