"""Settings of other trainers as a recipe: TRL, verl and OpenRLHF, a file each, and what they share."""
