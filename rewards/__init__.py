"""Rewards: completions in, scores with a status out."""
