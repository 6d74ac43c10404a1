"""Orchestrator: the recipe, the loop, the run directory and the `rayzero` command."""
