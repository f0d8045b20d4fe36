"""A classical filter bank as a backbone."""
