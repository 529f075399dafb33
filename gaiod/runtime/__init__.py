"""Where the processes' modules were up to 0.6: a supervisor that was upgraded underneath still starts them here."""
