"""Pictures in files: the decoder, its cache by content, and arrays decoded on demand."""
