"""What a run would need before it starts: memory per rank, FLOPs, the dry-run plan."""
