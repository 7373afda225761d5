"""Answers in files of labels, and their consensus: one verdict per image."""
