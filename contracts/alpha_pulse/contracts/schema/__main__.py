"""`python -m alpha_pulse.contracts.schema`: write every generated file."""

from alpha_pulse.contracts.schema.json_schema import write_files

if __name__ == "__main__":
    write_files()
