"""Downloads and prepares one TFDS data set as array_record: the only code that imports TensorFlow.

python -m tavaal_jax.data.prepare cifar10 ~/.cache/tavaal_jax/data
"""

import sys


def main(name: str, data_dir: str) -> None:
    """Prepares `name` below `data_dir`; files in `data_dir/downloads/manual` are not downloaded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")


if __name__ == "__main__":
    main(*sys.argv[1:])
