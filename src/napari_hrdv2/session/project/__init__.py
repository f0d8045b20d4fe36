"""Projects and autosaves: all that a user made, in one file that opens elsewhere."""
