"""Exchange to topics: live feeds and history, published without losing a trade silently."""
