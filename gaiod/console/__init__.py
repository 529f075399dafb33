"""What an operator sees and types: commands, tables, explanations, `gaiod top`."""
