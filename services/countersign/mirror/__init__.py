"""Follows somebody else's log over HTTP and believes nothing of it: mirrors, monitors, their evidence."""
