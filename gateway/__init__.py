"""The gateway: HTTP in front of Kafka, with a read model of its own for questions about jobs."""
