"""How fast it is, measured: `make bench` and `make load`. The application imports nothing of this."""
