"""What an operator watches: health, metrics, counters, the state of the queue."""
