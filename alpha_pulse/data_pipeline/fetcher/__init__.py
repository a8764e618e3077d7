"""Where the library's history comes from."""
