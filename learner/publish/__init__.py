"""Weights from the learner to the engines, one transport for each kind of host."""
