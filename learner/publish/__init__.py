"""Weights on their way out of the learner, a way for each kind of host."""
