"""Report: one page for colleagues, with numbers, pictures and a verdict."""
