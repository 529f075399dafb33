"""The feeder process: it runs the sources of messages, and hands what they publish to the workers."""
