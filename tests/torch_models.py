"""ResNet-18 and DRN-D-22 in plain PyTorch, with upstream's names, as our networks' reference.

    python tests/torch_models.py --write

needs PyTorch (torch==2.13.0), not JAX, and writes `pretrained.npz`: names and shapes of all tensors
and logits in both modes, which `test_pretrained.py` compares with.
"""

import argparse
import pathlib

import drawn
import numpy as np
import torch
from torch import nn

GOLDEN = pathlib.Path(__file__).with_name("pretrained.npz")


def conv(inputs, outputs, window, stride=1, dilation=1):
    return nn.Conv2d(
        inputs, outputs, window, stride, dilation * (window // 2), dilation, bias=False
    )


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride=1, dilation=1):
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride, dilation)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3, 1, dilation)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


def two_blocks(inputs, outputs, stride=1, dilation=1):
    first = Block(inputs, outputs, stride, dilation)
    return nn.Sequential(first, Block(outputs, outputs, 1, dilation))


def plain(inputs, outputs, window=3, stride=1, dilation=1):
    layers = conv(inputs, outputs, window, stride, dilation), nn.BatchNorm2d(outputs), nn.ReLU()
    return nn.Sequential(*layers)


class ResNet18(nn.Module):
    """Of torchvision's names, with the ImageNet stem."""

    def __init__(self, classes):
        super().__init__()
        self.conv1 = conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = two_blocks(64, 64)
        self.layer2 = two_blocks(64, 128, 2)
        self.layer3 = two_blocks(128, 256, 2)
        self.layer4 = two_blocks(256, 512, 2)
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class DRND22(nn.Module):
    """Of fyu/drn's names for segmentation; the logits have the images' size."""

    def __init__(self, classes):
        super().__init__()
        self.base = nn.Sequential(
            plain(3, 16, 7),
            plain(16, 16),
            plain(16, 32, stride=2),
            two_blocks(32, 64, 2),
            two_blocks(64, 128, 2),
            two_blocks(128, 256, dilation=2),
            two_blocks(256, 512, dilation=4),
            plain(512, 512, dilation=2),
            plain(512, 512),
        )
        self.seg = nn.Conv2d(512, classes, 1)
        self.up = nn.ConvTranspose2d(classes, classes, 16, 8, 4, groups=classes, bias=False)
        window = 1 - (torch.arange(16) / 8 - 15 / 16).abs()
        self.up.weight.data[:] = window[:, None] * window

    def forward(self, x):
        return self.up(self.seg(self.base(x)))[:, :, : x.shape[2], : x.shape[3]]


def logits(network, images):
    """`[B, H, W, C] -> [B, K]` or `[B, H, W, K]`."""
    with torch.no_grad():
        out = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    return np.moveaxis(out.numpy(), 1, -1)


def record(network, images):
    """What a test needs to know of a network."""
    state = network.state_dict()
    for name, value in state.items():
        if name != "up.weight" and not name.endswith("num_batches_tracked"):
            value.copy_(torch.from_numpy(drawn.tensor(name, tuple(value.shape))))
    modes = {"evaluation": network.eval, "training": network.train}
    found = {}
    for mode, switch in modes.items():
        switch()
        found[mode] = drawn.some(logits(network, images))
    shapes = [",".join(map(str, value.shape)) for value in state.values()]
    return {"names": np.array(list(state)), "shapes": np.array(shapes), **found}


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {GOLDEN.name} anew")
    arguments = parser.parse_args()
    records = {
        "resnet": record(ResNet18(10), drawn.images(3, 75, 90, 3)),
        "drn": record(DRND22(19), drawn.images(2, 76, 101, 3)),
    }
    flat = {f"{n}.{k}": value for n, found in records.items() for k, value in found.items()}
    for name, value in flat.items():
        print(name, value.shape, "" if value.dtype.kind == "U" else np.abs(value).max())
    if arguments.write:
        np.savez_compressed(GOLDEN, **flat)


if __name__ == "__main__":
    main()
