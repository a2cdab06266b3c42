"""Benchmarks: every figure that this project states comes from here (``dcache-butler bench``)."""
