"""Vision transformer of DINOv2: "DINOv2" (Oquab et al., TMLR 2024).

With registers it is that of "Vision transformers need registers" (Darcet et al., ICLR 2024).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from tavaal_jax.models import layers
from tavaal_jax.models.layers import Dropout, TaskOutput

PATCH = 14
REGISTERS = 4
"""So many in all published weights that have any."""
_EPSILON = 1e-6  # of LayerNorm
_PARTS = 4  # after each, a tap

_init = nn.initializers.truncated_normal(0.02)


class Size(NamedTuple):
    """Dimensions of a vision transformer."""

    features: int
    depth: int
    heads: int
    gated: bool = False
    """Whether the MLP is a SwiGLU, a product with a gate, and not of one GELU."""

    @property
    def hidden(self) -> int:
        """Units of the MLP."""
        hidden = 4 * self.features
        return (hidden * 2 // 3 + 7) // 8 * 8 if self.gated else hidden


SIZES = {
    "dinov2_small": Size(384, 12, 6),
    "dinov2_base": Size(768, 12, 12),
    "dinov2_large": Size(1024, 24, 16),
    "dinov2_giant": Size(1536, 40, 24, gated=True),
}


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its window: `[B, H, W, C] -> [B, H/p, W/p, F]`."""

    features: int
    patch: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """See the class."""
        p, channels = self.patch, images.shape[-1]
        kernel = self.param("kernel", _init, (p, p, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        batch, rows, columns = images.shape[0], images.shape[1] // p, images.shape[2] // p
        x = images.astype(self.dtype).reshape(batch, rows, p, columns, p, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
        x = x @ kernel.astype(self.dtype).reshape(-1, self.features)
        return x + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class LayerScale(nn.Module):
    """A factor for each feature: `[B, T, F] -> [B, T, F]`."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        gamma = self.param("gamma", nn.initializers.ones_init(), (x.shape[-1],))
        return x * gamma.astype(self.dtype).reshape(1, 1, -1)


class Block(nn.Module):
    """Attention and MLP, each of normalised tokens and added to them: `[B, T, F] -> [B, T, F]`."""

    size: Size
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """See the class."""
        x = x + LayerScale(self.dtype, name="scale1")(
            self._attention(_norm(self.dtype, "norm1")(x))
        )
        return x + LayerScale(self.dtype, name="scale2")(self._mlp(_norm(self.dtype, "norm2")(x)))

    def _attention(self, x: jax.Array) -> jax.Array:
        features, heads = self.size.features, self.size.heads
        x = _dense(3 * features, self.dtype, "qkv")(x)
        query, key, value = jnp.moveaxis(x.reshape(*x.shape[:2], 3, heads, features // heads), 2, 0)
        weights = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(weights * (features // heads) ** -0.5).astype(x.dtype)
        x = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return _dense(features, self.dtype, "proj")(x.reshape(*x.shape[:2], features))

    def _mlp(self, x: jax.Array) -> jax.Array:
        hidden = self.size.hidden
        if self.size.gated:
            gate, x = jnp.split(_dense(2 * hidden, self.dtype, "fc1")(x), 2, axis=-1)
            x = nn.silu(gate) * x
        else:
            x = nn.gelu(_dense(hidden, self.dtype, "fc1")(x), approximate=False)
        return _dense(self.size.features, self.dtype, "fc2")(x)


class ViT(nn.Module):
    """Vision transformer for images whose sides are multiples of the patch.

    The embedding is the class token after the last norm. Taps are the patches' tokens, as maps,
    after each quarter of the blocks. The parameter `positions` is for the images' own size.
    """

    classes: int
    size: Size
    registers: int = 0
    axis_name: str | None = None
    """Not used: nothing depends on a batch."""
    dropout: Dropout = Dropout()
    dtype: DTypeLike = jnp.float32
    patch: int = PATCH

    def setup(self) -> None:
        """The last layer, which `head` calls."""
        self.last = nn.Dense(self.classes, kernel_init=_init, name="Dense_0")

    def head(
        self, features: jax.Array, dropout_keys: jax.Array | None, size: tuple[int, ...] = ()
    ) -> jax.Array:
        """Logits from the features of a `TaskOutput`: `[B, E] -> [B, K]`."""
        del size
        features = self.dropout.before_head(features, dropout_keys, _PARTS)
        return self.last(features)

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, dropout_keys: jax.Array | None = None
    ) -> TaskOutput:
        """`images [B, H, W, C] -> logits [B, K], taps, embedding [B, E]`."""
        del train
        x = PatchEmbedding(self.size.features, self.patch, self.dtype, name="patches")(images)
        maps = x.shape
        positions = self.param("positions", _init, maps[1:])
        x = (x + positions.astype(self.dtype)[None]).reshape(maps[0], -1, maps[-1])
        first = [self._token("class_token", 1, maps[0])]
        if self.registers:
            first.append(self._token("registers", self.registers, maps[0]))
        x = jnp.concatenate([*first, x], axis=1)
        ends = [self.size.depth * part // _PARTS for part in range(1, _PARTS + 1)]
        taps: list[jax.Array] = []
        for number in range(self.size.depth):
            x = Block(self.size, self.dtype, name=f"block{number}")(x)
            if number + 1 in ends:
                if self.dropout.place == "stages":
                    x = layers.dropout(x, dropout_keys, self.dropout.rate, len(taps))
                taps.append(x[:, 1 + self.registers :].reshape(maps))
        embedding = _norm(self.dtype, "norm")(x[:, 0]).astype(jnp.float32)
        return TaskOutput(self.head(embedding, dropout_keys), tuple(taps), embedding, embedding)

    def _token(self, name: str, count: int, batch: int) -> jax.Array:
        """Tokens that are the same for every image: `[B, count, F]`."""
        token = self.param(name, _init, (count, self.size.features)).astype(self.dtype)
        return jnp.broadcast_to(token[None], (batch, *token.shape))


def _dense(features: int, dtype: DTypeLike, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=dtype, kernel_init=_init, name=name)


def _norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(_EPSILON, dtype, use_fast_variance=False, name=name)
