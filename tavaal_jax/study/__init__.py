"""The order of things: cycles, trials, studies."""
