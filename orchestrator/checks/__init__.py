"""Checks before anything starts; each finding is a sentence with a way out."""
