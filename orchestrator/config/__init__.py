"""The recipe: typed sections, resolved, validated and explained. Imports nothing heavy."""
