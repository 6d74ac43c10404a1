"""Parts of tests/bench/gpu.py, one module each with `run(bench)`; beside them what runs them and what they share."""
