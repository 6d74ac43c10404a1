"""The run directory: who writes it, what is in it, whether it can be continued, what it answers."""
