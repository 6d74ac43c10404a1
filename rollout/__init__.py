"""Rollout: prompts in, groups of sampled completions out (vLLM engines behind Ray actors)."""
