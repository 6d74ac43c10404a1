"""What the pages of the stages share: the context of a stage, its cadence, its batches and metrics."""
