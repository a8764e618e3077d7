"""A local exchange that speaks the exchanges' own protocols, from recorded or invented trades."""
