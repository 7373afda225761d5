"""Street scenes drawn by us, with label maps."""
