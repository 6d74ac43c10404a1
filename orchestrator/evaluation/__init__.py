"""Measuring a model: evaluation sets, win rates, pairs, and files of completions."""
