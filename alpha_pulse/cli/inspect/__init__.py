"""Commands that look at a running pipeline: `status`, `sql`, `deadletters`."""
