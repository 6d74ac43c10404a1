"""Scores by models: reward models, an LLM judge, and the actors that hold them for all reward workers."""
