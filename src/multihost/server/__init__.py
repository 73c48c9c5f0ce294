"""The process that owns the queues and the store."""
