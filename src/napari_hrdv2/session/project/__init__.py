"""Projects and autosaves on disk."""
