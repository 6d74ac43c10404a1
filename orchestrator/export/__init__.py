"""A model of a run as a Hugging Face folder with a model card, and its way to a hub."""
