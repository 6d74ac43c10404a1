"""The commands of `rayzero`, by subject. Nothing heavy is imported before a command needs it."""
