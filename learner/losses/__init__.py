"""The losses as pure functions of tensors over flat tokens: each a formula, its source and its figures."""
