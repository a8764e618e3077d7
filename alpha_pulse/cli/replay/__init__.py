"""The command `replay`: a recording through the whole path, accidents on the way, a verdict."""
