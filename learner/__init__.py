"""Learner: scored groups in, new weights out (DeepSpeed ranks behind Ray actors)."""
