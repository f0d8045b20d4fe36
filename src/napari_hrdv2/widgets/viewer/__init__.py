"""The layers of the viewer and the session."""
