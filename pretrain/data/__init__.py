"""The tokenised corpus and how its proteins become training batches."""
