"""The paper: pure functions of arrays. Knows no device, file, clock, data set or program."""
