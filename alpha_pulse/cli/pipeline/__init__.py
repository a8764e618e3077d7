"""The pipeline that commands find or start: servers, roles as processes, and what they stored."""
