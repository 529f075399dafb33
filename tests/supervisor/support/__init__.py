"""What tests of the supervisor share: its socket, systemd's side, processes with other rights."""
