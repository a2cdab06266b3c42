"""Settings of endpoints and where they come from."""
