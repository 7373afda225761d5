"""What can be wrong with a config, a method or a network, found before anything is run."""
