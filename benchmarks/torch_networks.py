"""The networks of the released code in plain PyTorch, reimplemented for `torch_peer.py`."""

import itertools

import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions."""

    def __init__(self, channels, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != features:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, features, 1, stride, bias=False), nn.BatchNorm2d(features)
            )

    def forward(self, x):
        """`[B, C, H, W] -> [B, F, H / stride, W / stride]`"""
        out = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 with the CIFAR stem; returns logits and the four stages' outputs."""

    def __init__(self, classes, channels=3):
        super().__init__()
        widths = (64, 64, 128, 256, 512)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                BasicBlock(widths[i], widths[i + 1], 1 if i == 0 else 2),
                BasicBlock(widths[i + 1], widths[i + 1], 1),
            )
            for i in range(4)
        )
        self.head = nn.Linear(512, classes)

    def forward(self, x):
        """`[B, C, H, W] -> logits [B, K], taps`"""
        x = self.stem(x)
        taps = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return self.head(x.mean((2, 3))), taps


class Ranker(nn.Module):
    """Loss prediction module."""

    def __init__(self):
        super().__init__()
        self.dense = nn.ModuleList(nn.Linear(c, 128) for c in (64, 128, 256, 512))
        self.out = nn.Linear(4 * 128, 1)

    def forward(self, taps):
        """`taps -> [B]`"""
        pooled = [functional.relu(d(t.mean((2, 3)))) for d, t in zip(self.dense, taps, strict=True)]
        return self.out(torch.cat(pooled, 1))[:, 0]


class VAE(nn.Module):
    """Convolutional VAE for 32x32 images, conditioned on the rank."""

    def __init__(self, latent, channels=3):
        super().__init__()
        widths = (channels, 128, 256, 512, 1024)
        down, up = [], []
        for i in range(4):
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1, bias=False)
            down += [conv, nn.BatchNorm2d(widths[i + 1]), nn.ReLU()]
        for i in (3, 2, 1):
            conv = nn.ConvTranspose2d(widths[i + 1], widths[i], 4, 2, 1, bias=False)
            up += [conv, nn.BatchNorm2d(widths[i]), nn.ReLU()]
        self.down = nn.Sequential(*down)
        self.mean, self.log_variance = nn.Linear(4096, latent), nn.Linear(4096, latent)
        self.expand = nn.Linear(latent + 1, 16 * 1024)
        self.up = nn.Sequential(*up, nn.ConvTranspose2d(128, channels, 1))

    def encode(self, x):
        """`[B, C, 32, 32] -> mean, log_variance [B, Z]`"""
        x = self.down(x).flatten(1)
        return self.mean(x), self.log_variance(x)

    def forward(self, rank, x):
        """`rank [B, 1], x -> reconstruction, mean, log_variance`"""
        mean, log_variance = self.encode(x)
        latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        decoded = self.expand(torch.cat([latent, rank], 1)).view(-1, 1024, 4, 4)
        if x.is_contiguous(memory_format=torch.channels_last):
            decoded = decoded.contiguous(memory_format=torch.channels_last)
        return self.up(decoded), mean, log_variance


class Discriminator(nn.Module):
    """MLP on latent and rank; `hidden` layers of 512."""

    def __init__(self, latent, hidden):
        super().__init__()
        widths = [latent + 1] + [512] * hidden
        dense = [m for a, b in itertools.pairwise(widths) for m in (nn.Linear(a, b), nn.ReLU())]
        self.net = nn.Sequential(*dense, nn.Linear(512, 1))

    def forward(self, rank, mean):
        """`[B, 1], [B, Z] -> logits [B]`"""
        return self.net(torch.cat([mean, rank], 1))[:, 0]
