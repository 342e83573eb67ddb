"""Policy files: every rule of the format, and what the error says when one is broken."""

import pytest

from support.vectors import (
    LOG,
    LOG_VKEY,
    NOTE,
    ORIGIN,
    PQ_WITNESS,
    ROOT_7,
    WITNESS,
    WITNESS_VKEY,
)
from tlog.checkpoint import Checkpoint
from tlog.cosignature import CosignatureKind, Cosigner
from tlog.errors import TlogError
from tlog.note import Signer, key_id_of, write_vkey
from tlog.policy import Policy

CHECKPOINT = Checkpoint(ORIGIN, 7, ROOT_7)
PQ_VKEY = PQ_WITNESS.verifier.vkey


def witness(number: int, kind: CosignatureKind = CosignatureKind.ED25519) -> Cosigner:
    return Cosigner.from_seed(f"witness.example/{number}", bytes([number]) * 32, kind)


def witness_line(number: int, url: str = "") -> str:
    return f"witness w{number} {witness(number).verifier.vkey} {url}\n"


SIX = "".join(witness_line(number) for number in range(1, 7))
NESTED = f"""\
# Two houses: two witnesses of one, and one of the other.
log {LOG_VKEY} https://ledger.example/exchange/
{SIX}
group X-witnesses 2 w1 w2 w3
group Y-witnesses any w4 w5 w6
group X-and-Y all X-witnesses Y-witnesses

quorum X-and-Y
"""


def test_policy_is_read_and_written() -> None:
    policy = Policy.parse(
        f"log {LOG_VKEY} https://ledger.example\nwitness w {WITNESS_VKEY} https://w.example\n"
        f"witness pq {PQ_VKEY}\ngroup both all w pq\nquorum both\n"
    )
    (log,) = policy.logs
    assert (log.verifier, log.url) == (LOG.verifier, "https://ledger.example")
    assert list(policy.witnesses) == ["w", "pq"]
    assert policy.witnesses["w"].verifier == WITNESS.verifier
    assert policy.witnesses["w"].url == "https://w.example"
    assert policy.witnesses["pq"].verifier == PQ_WITNESS.verifier
    assert policy.witnesses["pq"].url is None
    assert policy.quorum == "both"
    assert Policy.parse(policy.text).text == policy.text


@pytest.mark.parametrize(
    ("names", "there"),
    [
        ("", False),
        ("w1 w4", False),
        ("w1 w2", False),
        ("w4 w5 w6", False),
        ("w1 w2 w4", True),
        ("w1 w3 w6", True),
        ("w1 w2 w3 w4 w5 w6", True),
        ("w1 w2 X-witnesses Y-witnesses X-and-Y", False),
        ("w1 w2 stranger", False),
    ],
)
def test_nested_groups_make_a_quorum(names: str, there: bool) -> None:
    policy = Policy.parse(NESTED)
    assert policy.satisfied_by(names.split()) is there
    assert bool(policy.shortfall(names.split())) is not there


def test_missing_quorum_is_told_down_to_the_witnesses() -> None:
    assert Policy.parse(NESTED).shortfall(["w1", "w4"]) == (
        "group X-and-Y needs 2 of its 2 members and has 1: without X-witnesses; "
        "group X-witnesses needs 2 of its 3 members and has 1: without w2, w3"
    )
    single = Policy.parse(f"{SIX}quorum w6\n")
    assert single.shortfall(["w5"]) == "witness w6 has not cosigned"


def test_quorum_of_one_witness_or_of_none() -> None:
    assert Policy.parse(f"{SIX}quorum w2\n").satisfied_by(["w2"])
    assert not Policy.parse(f"{SIX}quorum w2\n").satisfied_by(["w1"])
    assert Policy.parse("quorum none\n").satisfied_by([])
    assert Policy.parse(f"quorum none\n{SIX}").satisfied_by([])


@pytest.mark.parametrize("how_many", ["any", "all", "1"])
def test_group_of_one(how_many: str) -> None:
    policy = Policy.parse(f"{SIX}group g {how_many} w1\nquorum g\n")
    assert policy.satisfied_by(["w1"])
    assert not policy.satisfied_by(["w2"])


def test_space_tabs_and_comments_mean_nothing() -> None:
    policy = Policy.parse(
        f" \t# comment \N{SNOWMAN}\n\n \t \nlog\t{LOG_VKEY}  \n"
        f"\twitness \t w#1  {WITNESS_VKEY}\t\nquorum w#1\n"
    )
    assert list(policy.witnesses) == ["w#1"]


def test_names_are_compared_as_bytes() -> None:
    """The Kelvin sign is not the letter, however much Unicode thinks so; and bytes need no meaning."""
    for name in (
        "\N{KELVIN SIGN}".encode(),
        b"\xff\xfe",
        b"a\xc2\xa0b",
        "\N{NO-BREAK SPACE}".encode(),
    ):
        policy = Policy.parse(b"witness %b %b\nquorum %b\n" % (name, WITNESS_VKEY.encode(), name))
        assert policy.quorum.encode("utf-8", "surrogateescape") == name
        assert Policy.parse(policy.text).text == policy.text
        assert policy.shortfall([]).isprintable()
        with pytest.raises(TlogError, match="line 2"):
            Policy.parse(b"witness %b %b\nquorum K\n" % (name, WITNESS_VKEY.encode()))


def test_words_of_the_format_may_be_names() -> None:
    policy = Policy.parse(
        f"witness any {witness(1).verifier.vkey}\nwitness all {witness(2).verifier.vkey}\n"
        "group 2 any any all\nquorum 2\n"
    )
    assert policy.satisfied_by(["all"])


def test_key_may_be_once_a_logs_and_once_a_witness() -> None:
    own = Cosigner.from_seed(ORIGIN, bytes(range(32)), CosignatureKind.ED25519)
    assert own.verifier.public_key == LOG.verifier.public_key
    policy = Policy.parse(f"log {LOG_VKEY}\nwitness own {own.verifier.vkey}\nquorum own\n")
    assert not policy.judge(NOTE).quorum
    assert policy.judge(NOTE + own.cosign(CHECKPOINT, 1)).quorum


MANY = 40


def test_forty_logs_witnesses_and_groups_are_read() -> None:
    logs = "".join(
        f"log {Signer.from_seed(f'log{number}', bytes([number]) * 32).vkey}\n"
        for number in range(MANY)
    )
    witnesses = "".join(witness_line(number) for number in range(MANY))
    groups = "group g0 any w0\n" + "".join(
        f"group g{number} all w{number} g{number - 1}\n" for number in range(1, MANY)
    )
    policy = Policy.parse(f"{logs}{witnesses}{groups}quorum g{MANY - 1}\n")
    assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (MANY,) * 3
    names = [f"w{number}" for number in range(MANY)]
    assert policy.satisfied_by(names)
    assert not policy.satisfied_by(names[1:])
    assert "group g0 needs 1 of its 1 members and has 0" in policy.shortfall(names[1:])


TWO = witness_line(1) + witness_line(2)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("", "no quorum line"),
        ("# quorum none\n", "no quorum line"),
        ("quorum none", "line 1: the last line does not end in a line feed"),
        ("quorum none\n ", "line 2: the last line does not end"),
        ("quorum none\nquorum none\n", "line 2: there is a quorum line before"),
        ("quorum w1\n" + TWO, "line 1: w1 is not a witness or group of an earlier line"),
        ("quorum\n", "line 1: a quorum line is"),
        ("quorum none none\n", "line 1: a quorum line is"),
        ("quorum None\n", "line 1: None is not a witness"),
        ("Quorum none\n", "line 1: a line starts with"),
        ("witnesses\n", "line 1: a line starts with"),
        ("quorum none\r\n", "line 1: the control character 0x0d"),
        ("# \x00\n", "line 1: the control character 0x00"),
        ("\n\n# \x7f\n", "line 3: the control character 0x7f"),
        ("quorum\vnone\n", "0x0b"),
        ("log\n", "line 1: a log line is"),
        (f"log {LOG_VKEY} url more\n", "line 1: a log line is"),
        ("log x\n", "line 1: a verifier key is"),
        (f"log {LOG_VKEY}\n\nlog {LOG_VKEY}\n", "line 3: the key was given for a log before"),
        (f"log {WITNESS_VKEY}\n", "line 1: a log's key is of type 1"),
        ("witness w\n", "line 1: a witness line is"),
        (f"witness w {WITNESS_VKEY} url more\n", "line 1: a witness line is"),
        (f"witness w {LOG_VKEY}\n", "line 1: a witness's key is of type 4"),
        (f"witness w {WITNESS_VKEY}x\n", "line 1: the verifier key is not"),
        (f"witness none {WITNESS_VKEY}\n", "line 1: the name none has its own"),
        (
            f"witness a {WITNESS_VKEY}\nwitness b {WITNESS_VKEY}\n",
            "line 2: the key was given for witness a before",
        ),
        (TWO + f"witness w1 {WITNESS_VKEY}\n", "line 3: the name w1 was given before"),
        (TWO + "group w1 any w2\n", "line 3: the name w1 was given before"),
        (TWO + "group g any w1\ngroup g any w2\n", "line 4: the name g was given before"),
        (TWO + "group none any w1\n", "line 3: the name none"),
        (TWO + "group g any\n", "line 3: a group line is"),
        (TWO + "group g any none\n", "line 3: none is not a witness or group"),
        (TWO + "group g any w3\n" + witness_line(3), "line 3: w3 is not a witness or group"),
        (TWO + "group g any g\n", "line 3: g is not a witness or group"),
        (TWO + "group g any w1 w1\n", "line 3: w1 is named twice"),
        (
            TWO + "group g any w1\ngroup h any w1 w2\n",
            "line 4: w1 is a member of group g already",
        ),
        (TWO + "group g 0 w1 w2\n", "line 3: a group needs all, any or a number"),
        (TWO + "group g 01 w1 w2\n", "line 3: a group needs all, any or a number"),
        (TWO + "group g +1 w1 w2\n", "line 3: a group needs all, any or a number"),
        (TWO + "group g ALL w1 w2\n", "line 3: a group needs all, any or a number"),
        (TWO + f"group g {'9' * 5000} w1\n", "line 3: a group needs all, any or a number"),
        (TWO + "group g \N{ARABIC-INDIC DIGIT ONE} w1\n", "line 3: a group needs all, any"),
        (TWO + "group g 3 w1 w2\n", "line 3: a group of 2 members cannot need 3"),
        ("#" * (1024 * 1024 + 1), "longer than"),
        ("\ud800\n", "not a text"),
    ],
)
def test_broken_rule_is_named_with_its_line(policy: str, says: str) -> None:
    with pytest.raises(TlogError, match=says):
        Policy.parse(policy)


def test_same_key_under_two_names_is_one_witness() -> None:
    """Otherwise whoever holds one key would make a quorum of two."""
    alias = Cosigner.from_seed("other.example", bytes(range(32, 64)), CosignatureKind.ED25519)
    with pytest.raises(TlogError, match="line 2: the key was given for witness w before"):
        Policy.parse(f"witness w {WITNESS_VKEY}\nwitness v {alias.verifier.vkey}\nquorum none\n")


def two_keys_with_one_id() -> tuple[str, str]:
    """Two keys of one name whose ids are the same: among so many there is a pair."""
    seen: dict[bytes, bytes] = {}
    for number in range(1_000_000):
        public_key = number.to_bytes(32)
        other = seen.setdefault(key_id_of("w", 0x04, public_key), public_key)
        if other != public_key:
            return write_vkey("w", 0x04, other), write_vkey("w", 0x04, public_key)
    raise AssertionError


def test_keys_whose_signatures_could_not_be_told_apart_are_refused() -> None:
    one, other = two_keys_with_one_id()
    with pytest.raises(TlogError, match="line 2: signatures of this key could not be told"):
        Policy.parse(f"witness a {one}\nwitness b {other}\nquorum none\n")
