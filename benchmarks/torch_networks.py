"""The networks of the released code, and backbones, in plain PyTorch for `torch_peer.py`."""

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


class SameConv(nn.Sequential):
    """Convolution with TensorFlow's SAME padding, of even sides, BatchNorm, ReLU6 or nothing."""

    def __init__(self, channels, features, window=1, stride=1, groups=1, relu=True):
        pad = (window - 1) // 2 if stride == 1 else 0
        layers = [nn.Conv2d(channels, features, window, stride, pad, groups=groups, bias=False)]
        if stride == 2:
            layers.insert(0, nn.ZeroPad2d(((window - 2) // 2, (window - 1) // 2) * 2))
        layers.append(nn.BatchNorm2d(features, 1e-3))
        super().__init__(*layers, nn.ReLU6(inplace=True) if relu else nn.Identity())


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection."""

    def __init__(self, channels, features, window, stride, expansion):
        super().__init__()
        inner = expansion * channels
        expand = [SameConv(channels, inner)] if expansion > 1 else []
        depthwise = SameConv(inner, inner, window, stride, inner)
        self.body = nn.Sequential(*expand, depthwise, SameConv(inner, features, relu=False))
        self.residual = stride == 1 and channels == features

    def forward(self, x):
        """`[B, C, H, W] -> [B, F, H / stride, W / stride]`"""
        return x + self.body(x) if self.residual else self.body(x)


class EfficientNetLite0(nn.Sequential):
    """Images `[B, 3, H, W]` -> features `[B, 1280]`."""

    def __init__(self):
        layers, channels = [SameConv(3, 32, 3, 2)], 32
        for repeats, window, stride, expansion, features in (
            (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
            (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
        ):  # fmt: skip
            for block in range(repeats):
                first = stride if block == 0 else 1
                layers.append(InvertedResidual(channels, features, window, first, expansion))
                channels = features
        super().__init__(*layers, SameConv(320, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class ViTBlock(nn.Module):
    """Attention and MLP, scaled."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(width)) for _ in range(2))

    def forward(self, x):
        """`[B, T, F] -> [B, T, F]`"""
        batch, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, -1)
        mixed = functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4))
        x = x + self.scale1 * self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.scale2 * self.mlp(self.norm2(x))


class ViTSmall(nn.Module):
    """DINOv2's ViT-S/14 for images of 224 pixels -> features `[B, 384]`."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 384, 14, 14)
        self.positions = nn.Parameter(torch.randn(256, 384))
        self.token = nn.Parameter(torch.randn(1, 1, 384))
        self.blocks = nn.Sequential(*(ViTBlock(384, 6) for _ in range(12)))
        self.norm = nn.LayerNorm(384, 1e-6)

    def forward(self, x):
        """`[B, 3, 224, 224] -> [B, 384]`"""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.norm(self.blocks(x)[:, 0])


BACKBONES = {"efficientnet_lite0": EfficientNetLite0, "dinov2_small": ViTSmall}
