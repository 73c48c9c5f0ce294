"""The process on some machine that leases tasks and runs them in its slots."""
