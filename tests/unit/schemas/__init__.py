"""Tests of `schemas`: examples, lint, hostile bytes, registry, states, topics."""
