"""Processes for trusted functions that may hang: every call ends by its deadline."""
