"""Metrics and health over HTTP, the same way in every role (the extra `roles`)."""
