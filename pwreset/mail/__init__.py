"""Mail: rows waiting (outbox), how they are written (messages), and how they are sent (delivery, smtp, worker)."""
