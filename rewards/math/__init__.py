"""Whether an answer equals the reference: found in the response, read into a tree, compared exactly."""
