"""ClickHouse on this machine: the chDB engine behind ClickHouse's native TCP protocol."""
