"""Apache Kafka as a child process: one KRaft node from checksummed jars on the Java runtime of a wheel.

`broker.Broker` is the handle of one node, `python -m streams.local` runs one in the foreground.
"""
