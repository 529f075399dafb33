"""`gaiod top`: a live view of a running daemon. A client of the control socket, as the other commands are."""
