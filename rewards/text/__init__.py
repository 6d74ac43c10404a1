"""Scores of plain text: format, language, length, repetition; and what thought, reply and answer of a response are."""
