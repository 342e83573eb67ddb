"""The parts of nats-py that shared/nats_client.py replaces or leans on are those that it was written for.

A new release of the library that changes one of them fails here, before anything subtler does. Then read
what changed, see whether ours still does all that the library's would, and write the new digest here.
"""

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

LEANED_ON: dict[Callable[..., Any], str] = {
    # Replaced or wrapped: ours has to do whatever they do.
    Client._flush_pending: "317c8d7ef54b90b7",
    Client._init_request_sub: "14571cd9117edb1c",
    Client._process_msg: "6cff75947e97717a",
    Client._read_loop: "b44b9401f436dd0e",
    Client._remove_sub: "0791939ce078f393",
    Client._request_new_style: "78cc35ce5ad4f811",
    Client._send_publish: "300b534f8eabee74",
    Client.publish: "97d776c391adfd8b",
    Client.request: "5b1b97e620daed80",
    Parser.parse: "7d6165f1766cccd1",
    # They read or write what ours shares with them, or ours counts on what they do.
    Client._attempt_reconnect: "2bbc96e0f2f765ec",
    Client._close: "9a92d3aca1b2c1fd",
    Client._flusher: "43957ffb357d6d94",
    Client._parse_header_lines: "049cf69148e0bb4f",
    Client._process_connect_init: "e1ed2da075c82ab0",
    Client._process_headers: "fe656f61147df989",
    Client._process_op_err: "d4257cb1203cdbcb",
    Client._select_next_server: "c278559f8a14659c",
    Client._send_command: "ed57e8e86389cf94",
    Client._send_ping: "d57b2f820443afb4",
    Client._send_subscribe: "d265ae9f821a007f",
    Client.flush: "b410d7515bcc7800",
    Client.subscribe: "30bf1c4cc1c94806",
    Parser.reset: "0f304f3f8691385f",
    Subscription._drain: "e278c0ffc3ea94ce",
    Subscription._start: "ba636472c5d54b17",
    TcpTransport.connect: "96c97f9bad0501da",
    TcpTransport.connect_tls: "6688ffffefa25d6b",
    TcpTransport.read: "88fd9f3e084e97af",
    TcpTransport.writelines: "bef96469be62a753",
}


@pytest.mark.parametrize("part", LEANED_ON, ids=lambda part: part.__qualname__)
def test_library_is_the_one_that_our_client_was_written_for(part: Callable[..., Any]) -> None:
    digest = hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:16]
    assert digest == LEANED_ON[part], (
        f"nats-py changed {part.__qualname__}: see the top of this file"
    )


async def test_stream_keeps_what_nobody_has_read_where_we_take_it_from() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"x")
    assert vars(reader)["_buffer"] == bytearray(b"x")
