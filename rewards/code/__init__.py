"""Scores of programs: the program of a response, the tests of a task, what of them passes in the sandbox."""
