"""The sections of a recipe, every key documented where it is declared."""
