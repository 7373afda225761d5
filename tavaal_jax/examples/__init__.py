"""Short scripts to copy from: `python -m tavaal_jax.examples.NAME`; all by `import tavaal_jax`."""
