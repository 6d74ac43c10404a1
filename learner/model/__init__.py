"""The models that are trained, as modules over packed sequences."""
