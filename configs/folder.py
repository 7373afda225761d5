"""Your own images, labelled by people between the cycles, on features of a pretrained network.

Command: pip install 'tavaal_jax[photos]'
         python -m tavaal_jax.main --config=configs/folder.py --config.folder.images=FOLDER
Time and score: see "Your own images" in README.md.
It stops with exit code 75 when labels are needed; run the same command again after labelling.
"""

from tavaal_jax import load_config


def get_config():
    """Uncertainty herding from a TypiClust start: best of ours on features of photos (README)."""
    config = load_config("folder_from_scratch")
    config.backbone.name = "efficientnet_lite0"
    config.methods, config.first_by = "uherding", "typiclust"
    return config
