"""Where prompts come from: rows of files, hub sets and tasks, mixed, rendered by a template and tokenised."""
