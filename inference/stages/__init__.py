"""The work itself: pure functions from inputs to files, called in a slot's child process.

Importing this package loads no torch; `inference.stages.factory.load_stage` loads what a stage needs.
"""
