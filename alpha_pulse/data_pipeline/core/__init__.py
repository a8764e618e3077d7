"""Settings, errors, validation, interfaces and models of the library, under their short names."""
