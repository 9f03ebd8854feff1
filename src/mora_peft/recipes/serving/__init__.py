"""Serving from the outside: starting a server, and loading it with requests."""
