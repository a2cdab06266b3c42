"""The command ``dcache-butler``."""
