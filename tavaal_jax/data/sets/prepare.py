"""Downloads and prepares one TFDS data set as array_record: the only code that imports TensorFlow.

python -m tavaal_jax.data.sets.prepare cifar10 ~/.cache/tavaal_jax/data
"""

import argparse


def prepare(name: str, data_dir: str) -> None:
    """Prepares `name` below `data_dir`; files in `data_dir/downloads/manual` are not downloaded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(file_format="array_record")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of a data set")
    parser.add_argument("data_dir")
    arguments = parser.parse_args()
    prepare(arguments.name, arguments.data_dir)
