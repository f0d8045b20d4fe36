"""What is clicked in the dock widget."""
