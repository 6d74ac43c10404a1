"""The inner side of the sandbox: standard library only, imported in a bare interpreter before it shuts itself in.

The host imports `messages` from here and nothing else.
"""
