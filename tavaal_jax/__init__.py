"""TA-VAAL, task-aware variational adversarial active learning (CVPR 2021), in JAX and Flax.

Shapes are written in docstrings with these letters:

B batch, D devices, H W C image height, width, channels, K classes, Z latent size, E embedding size,
N training images, M subset size, b budget; L and U are the labelled and the unlabelled images.
"""
