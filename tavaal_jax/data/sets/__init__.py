"""A file per source of data sets, and the catalogue of all."""
