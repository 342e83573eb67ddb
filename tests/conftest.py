"""Fixtures that every suite may use."""

pytest_plugins = ["support.nats_servers"]
