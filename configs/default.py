"""Every key there is, with CIFAR-10's values (Table 1 of the paper); not an experiment by itself.

`tavaal_jax/config.py` says what each key means and which limits it has.
"""

from tavaal_jax import config


def get_config():
    """All keys. An experiment starts from these and overrides a few."""
    return config.default()
