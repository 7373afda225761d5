"""Fashion-MNIST as in `fashion_mnist_evidence`, for two CPU cores: a small network, 200 epochs.

Command: python -m tavaal_jax.main --config=configs/fashion_mnist_evidence_small.py
Time and score: not run. By the step times of `fashion_mnist_small` 0.9 h (random) to 4.4 h (tavaal)
a trial on one core of an AMD EPYC, 34 core-hours in all.
Reduced, compared with `fashion_mnist_evidence`: three blocks of 16 to 64 channels for ResNet-18,
Algorithm 1's schedule for the released one, with two fifths of its VAE steps; two of five trials
left out.
"""

from tavaal_jax import load_config


def get_config():
    """Batches of 128, as in the paper."""
    config = load_config("fashion_mnist_small")
    config.methods = "random,coreset,learning_loss_v2,vaal,tavaal"
    config.epochs, config.batch_size = 200, 128
    return config
