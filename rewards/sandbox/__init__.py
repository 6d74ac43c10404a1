"""Untrusted Python programs and their tests, in processes that are shut in: one cell a program.

What is contained, and what is not, is said at the head of `pool.py`.
"""
