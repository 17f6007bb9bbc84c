"""Plot: pictures of results, error bars and checks."""
