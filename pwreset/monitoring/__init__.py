"""Monitoring for operators: health, metrics, counters, the state of the queue."""
