"""What a run looks like while it goes on, in a terminal: read from its folder alone."""
