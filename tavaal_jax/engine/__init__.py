"""Compiled programs, devices, processes: the only package that uses pmap and compilation."""
