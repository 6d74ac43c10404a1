"""The objectives as plain functions of tensors: each a formula, its source and its figures."""
