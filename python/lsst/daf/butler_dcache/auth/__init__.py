"""Credentials: what they are, where they come from, how they are narrowed."""
