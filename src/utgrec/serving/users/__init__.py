"""Histories of users, kept by the server if the shop wants it to: in SQLite, or in PostgreSQL."""

__all__: list[str] = []
