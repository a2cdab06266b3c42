"""A Rubin Data Butler backend for dCache."""
