"""What is checked before anything starts, each finding a sentence with a way out."""
