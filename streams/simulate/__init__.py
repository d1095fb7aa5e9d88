"""The simulator: made or recorded traffic through the very policy code that schedules in production."""
