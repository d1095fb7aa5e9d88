"""Drivers of other task queues for `meshyard bench peers`: the same job, three stages that do nothing, result stored.

They run in an environment of their own (requirements.txt), started by the benchmark with the repository as their
PYTHONPATH, and talk to it in lines of JSON. What favours the peers stays: no result backend of theirs, no gossip, no
heartbeats; the last stage stores the result itself.
"""
