"""The data of a stage: its prompts, worked examples and preference pairs, and what of them is kept."""
