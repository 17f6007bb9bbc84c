"""Request: what a user asked for, as a settings file, and where a result came from."""
