"""Results, tables, a script and a methods paragraph as files."""
