"""Commands for before anything runs: `config`, `schema`, `migrate`, and the checks of `doctor`."""
