"""What travels between the parts: events, codec, topics, configuration, errors."""
