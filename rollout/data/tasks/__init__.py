"""Small generated tasks with known answers: problems for a first run that needs no download."""
