"""Estimates of what a recipe needs, memory, places and batches, and facts about this machine. Starts nothing."""
