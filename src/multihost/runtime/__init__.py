"""What every process needs: connections, clocks, configuration, services."""
