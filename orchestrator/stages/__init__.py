"""One page a stage kind."""
