"""Commands that run roles until they are ended: `demo`, `up`, one role alone, `capture`."""
