"""The labelling page, a single HTML file."""
