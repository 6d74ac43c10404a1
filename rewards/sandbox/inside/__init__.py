"""What runs on the inner side of the sandbox.

Stdlib only: the zygote imports these modules in a bare interpreter, before it shuts itself in. The host imports `values`
and `kernel` from here and nothing else.
"""
