"""A run as one page that people look at: what each section says is a file."""
