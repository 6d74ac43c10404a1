"""A storage that all hosts of a cluster reach, by its URI: single objects, and folders that are there whole or not at all."""
