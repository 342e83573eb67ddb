"""Directives: what one party has ordered about face searches, and what that says of one search.

A library for the policy service, the connector and the command line. Trusted to say CANNOT_TELL
whenever it is not certain; knows no network and no clock.
"""
