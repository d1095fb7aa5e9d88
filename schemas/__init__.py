"""What travels between the stages: Avro records, topics, job states, pipelines. Imports none of our packages."""
