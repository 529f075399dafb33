"""stub."""


def peer_text(a):
    return str(a)
