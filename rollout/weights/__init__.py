"""Weights on their way into an engine: what a publish sends, and the ends of it inside vLLM."""
