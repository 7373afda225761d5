"""From files of labels to one verdict per image."""
