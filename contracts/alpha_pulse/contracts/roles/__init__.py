"""What the roles share (the extra `roles`): logs, metrics, stopping, `Publisher`, whole batches.

A reader of the topics imports none of it.
"""
