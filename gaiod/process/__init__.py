"""What every process that the supervisor starts does: its start, signals, the channel, completions to hooks."""
