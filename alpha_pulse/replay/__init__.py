"""A local exchange that speaks the exchanges' own protocols, from a recording or a synthetic market."""
