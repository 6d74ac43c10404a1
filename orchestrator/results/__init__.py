"""The result of a run as plain tables: which model is how good, and where it comes from."""
