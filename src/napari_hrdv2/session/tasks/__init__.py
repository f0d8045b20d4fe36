"""Long work on frozen snapshots, answered in any thread."""
