"""Every key there is, with CIFAR-10's values (Table 1 of the paper); not an experiment by itself.

`tavaal_jax/config_keys.py` documents each key with its limits.
"""

from tavaal_jax import config


def get_config():
    """Returns all keys with their defaults; an experiment overrides a few of them."""
    return config.default()
