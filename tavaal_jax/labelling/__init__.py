"""Labelling of people's own images: images, labels, requests, and the loop around them."""
