"""How we talk to Kafka: settings, producers, consumers, administration."""
