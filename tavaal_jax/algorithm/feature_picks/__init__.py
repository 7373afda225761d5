"""Picks of methods that work on features: values to picks, as in `algorithm.picks`."""
