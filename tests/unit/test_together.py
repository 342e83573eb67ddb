"""One signature over several messages vouches for exactly these, for this purpose, by this key."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.connector.v1.connector_pb2 import SignedAnswer, SignedOrder, SignedTogether
from shared.signing import ANSWER_CONTEXT, ORDER_CONTEXT, BadSignature, SigningKey
from shared.together import (
    ANSWERS_CONTEXT,
    ORDERS_CONTEXT,
    TOGETHER_MAX,
    sign_together,
    verify_answer,
    verify_order,
)

KEY = SigningKey.generate()
STRANGER = SigningKey.generate()
CONTEXTS = (ORDER_CONTEXT, ANSWER_CONTEXT, ORDERS_CONTEXT, ANSWERS_CONTEXT)
messages = st.lists(st.binary(max_size=200), min_size=1, max_size=TOGETHER_MAX, unique=True)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def listed(together: SignedTogether, data: bytes) -> SignedOrder:
    """An order with no signature of its own."""
    return SignedOrder(order=data, key_id=KEY.key_id, together=together)


def verified(signed: SignedOrder | SignedAnswer) -> bytes:
    if isinstance(signed, SignedOrder):
        return verify_order(KEY.verify_key, signed)
    return verify_answer(KEY.verify_key, signed)


def refused(signed: SignedOrder | SignedAnswer) -> bool:
    """Asked twice: what did not verify must not be remembered as if it had."""
    for _ in range(2):
        with pytest.raises(BadSignature):
            verified(signed)
    return True


@pytest.mark.promise(2)
@given(signed=messages, other=st.binary(max_size=200))
def test_it_vouches_for_each_of_them_and_for_nothing_else(
    signed: list[bytes], other: bytes
) -> None:
    together = sign_together(KEY, ORDERS_CONTEXT, [sha256(one) for one in signed])
    for one in signed:
        assert verify_order(KEY.verify_key, listed(together, one)) == sha256(one)
    if other not in signed:
        assert refused(listed(together, other))


@pytest.mark.promise(2)
@given(signed=messages, data=st.data())
def test_a_changed_list_vouches_for_nothing(signed: list[bytes], data: st.DataObject) -> None:
    together = sign_together(KEY, ORDERS_CONTEXT, [sha256(one) for one in signed])
    changed = bytearray(together.digests)
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    for digests in (
        bytes(changed),
        together.digests + sha256(b"one more"),
        together.digests[:-1],
        together.digests[32:],
        b"",
    ):
        together.digests = digests
        assert refused(listed(together, signed[0]))


@pytest.mark.promise(2)
@pytest.mark.parametrize("context", [one for one in CONTEXTS if one != ORDERS_CONTEXT])
def test_a_signature_for_another_purpose_does_not_serve(context: str) -> None:
    assert refused(listed(sign_together(KEY, context, [sha256(b"order")]), b"order"))


@pytest.mark.promise(2)
def test_answers_signed_together_are_no_orders_nor_the_other_way_round() -> None:
    digests = [sha256(b"one"), sha256(b"two")]
    answers = sign_together(KEY, ANSWERS_CONTEXT, digests)
    orders = sign_together(KEY, ORDERS_CONTEXT, digests)
    assert verify_answer(KEY.verify_key, SignedAnswer(answer=b"one", together=answers))
    assert refused(SignedAnswer(answer=b"one", together=orders))
    assert refused(listed(answers, b"one"))


@pytest.mark.promise(2)
def test_a_signature_over_a_list_is_none_over_a_message_nor_the_other_way_round() -> None:
    together = sign_together(KEY, ORDERS_CONTEXT, [sha256(b"one"), sha256(b"two")])
    assert refused(SignedOrder(order=together.digests, signature=together.signature))
    alone = KEY.sign(ORDER_CONTEXT, sha256(b"one"))
    assert refused(listed(SignedTogether(digests=sha256(b"one"), signature=alone), b"one"))


@pytest.mark.promise(2)
def test_another_keys_list_does_not_serve_even_after_it_was_verified_for_that_key() -> None:
    signed = listed(sign_together(STRANGER, ORDERS_CONTEXT, [sha256(b"order")]), b"order")
    assert verify_order(STRANGER.verify_key, signed)
    assert refused(signed)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda together: together.ClearField("signature"),
        lambda together: setattr(together, "signature", together.signature + b"\0"),
        lambda together: setattr(together, "digests", together.digests * (TOGETHER_MAX + 1)),
    ],
)
def test_where_the_list_does_not_serve_the_messages_own_signature_does(
    spoil: Callable[[SignedTogether], None],
) -> None:
    together = sign_together(KEY, ORDERS_CONTEXT, [sha256(b"order")])
    spoil(together)
    signed = listed(together, b"order")
    assert refused(signed)
    signed.signature = KEY.sign(ORDER_CONTEXT, b"order")
    assert verify_order(KEY.verify_key, signed) == sha256(b"order")


def test_more_than_the_bound_serves_nobody() -> None:
    digests = [sha256(bytes([number])) for number in range(TOGETHER_MAX + 1)]
    assert refused(listed(sign_together(KEY, ORDERS_CONTEXT, digests), b"\0"))
