"""The backbone that the package brings along: learned features without a download."""
