"""Real Fashion-MNIST at the paper's size: ResNet-18, the released schedule, 1,000 to 5,000 labels.

Command: python -m tavaal_jax.main --config=configs/fashion_mnist_evidence.py
Time and score: not run. From step times measured on one H100 (4.7 ms a step of T, 7.5 ms of VAE and
D): about 7 min for a trial of each method with an adversary, 1 to 2 min for the others.
On machines available for minutes only: a trial resumes from its picks.csv and results.csv alone.
Reduced, compared with `fashion_mnist`: 100 of 200 epochs, five of ten cycles, eight methods
left out.
"""

from tavaal_jax import load_config


def get_config():
    """Five methods; trials run in turn, so that a paired comparison is complete early."""
    config = load_config("fashion_mnist")
    config.methods = "random,coreset,learning_loss_v2,vaal,tavaal"
    config.trials, config.cycles, config.epochs = 5, 5, 100
    config.schedule, config.vae.unlabelled = "two_phase", "subset"
    return config
