"""OpenID AuthZEN Authorization API 1.0 over HTTPS, for any policy domain.

`questions` and `reading` are the standard's information model, `front` its endpoints, `port` its HTTPS
binding; none of them knows what is asked about. `searches` is the one domain that is served: face
searches, decided by the same `Deciding` as over gRPC and the bus. Changes nothing and records nothing.
"""
