"""Files: one module a format, recognised by content."""
