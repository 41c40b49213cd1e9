"""Recommendations over HTTP and live catalogues: not there yet."""
