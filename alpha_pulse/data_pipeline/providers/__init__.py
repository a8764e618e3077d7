"""Where the library's live data come from."""
