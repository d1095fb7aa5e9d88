"""Faust agents, thin: they read, ask the policy, send, and only then acknowledge."""
