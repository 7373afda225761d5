"""Weights and images that PyTorch and JAX draw alike: `torch_models.py` and `test_pretrained.py`.

From `RandomState`, whose streams never change, one seed for each name.
"""

import math
import zlib

import numpy as np


def tensor(name, shape):
    """A value that a trained network might have for a tensor of PyTorch's state dict."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("weight"):
        spread = 1 / math.sqrt(math.prod(shape[1:]))
        return (spread * random.standard_normal(shape)).astype(np.float32)
    return (0.1 * random.standard_normal(shape)).astype(np.float32)


def images(*shape):
    """Normalised ones, `[B, H, W, C]`."""
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def some(logits):
    """Few enough of the logits to be kept in a file: `[B, K]`, or some pixels of `[B, H, W, K]`."""
    return logits[:, ::5, 3::7] if logits.ndim == 4 else logits
