"""What a recipe will ask of machines: memory, places, batches. Starts nothing."""
