"""Results as text for people. Nothing here prints."""
