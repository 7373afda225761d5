"""Photos: the one decoder and its cache by content."""
