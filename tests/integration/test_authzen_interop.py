"""The standard's own scenarios, over HTTPS: the front fits other domains than ours."""

from typing import Any

import pytest

from support.authzen import Enforcement, asked, certification, records, table, todo
from support.doors import Pki

ALICE = {"type": "user", "id": "alice"}
RECORD = {"type": "record", "id": "record-1"}
READ = {"name": "read"}
ROUNDS = 3


def names(found: Any) -> list[str]:
    return [result.get("id") or result["name"] for result in found["results"]]


async def test_todo_application_gets_the_decisions_of_the_interoperability_event(pki: Pki) -> None:
    rows = table("todo")["evaluation"]
    assert len(rows) == 40
    async with asked(todo(), pki) as pep:
        for subject, action, kind, name, owner, expected in rows:
            question = {
                "subject": {"type": "user", "id": subject, "identity": subject},
                "action": {"name": action},
                "resource": {"type": kind, "id": name},
                "context": {},
            }
            if owner is not None:
                question["resource"]["properties"] = {"ownerID": owner}
            assert await pep.evaluation(question) == {"decision": expected}, question


async def test_todo_application_asks_of_several_todos_at_once(pki: Pki) -> None:
    async with asked(todo(), pki) as pep:
        for subject, todos in table("todo")["evaluations"]:
            question = {
                "subject": {"type": "user", "id": subject},
                "action": {"name": "can_update_todo"},
                "resource": {},
                "context": {},
                "evaluations": [
                    {
                        "resource": {
                            "type": "todo",
                            "id": "7240d0db-8ff0-41ec-98b2-34a096273b9f",
                            "properties": {"ownerID": owner},
                        }
                    }
                    for owner, _ in todos
                ],
            }
            answer = await pep.post("/access/v1/evaluations", question)
            assert answer.json == {"evaluations": [{"decision": said} for _, said in todos]}


async def test_search_demonstration_finds_what_its_tables_say(pki: Pki) -> None:
    facts = table("search")
    async with asked(records(), pki) as pep:
        for record, action, users in facts["subject"]:
            found = await pep.search(
                "subject",
                {
                    "subject": {"type": "user"},
                    "action": {"name": action},
                    "resource": {"type": "record", "id": record},
                },
            )
            assert found["results"] == [{"type": "user", "id": user} for user in users]
        for user, action, kept in facts["resource"]:
            found = await pep.search(
                "resource",
                {
                    "subject": {"type": "user", "id": user},
                    "action": {"name": action},
                    "resource": {"type": "record"},
                },
            )
            assert found["results"] == [{"type": "record", "id": record} for record in kept]


async def test_search_demonstration_finds_every_action_and_no_other(pki: Pki) -> None:
    facts = table("search")
    listed = {(user, record): actions for user, record, actions in facts["action"]}
    async with asked(records(), pki) as pep:
        for user, _, _ in facts["users"]:
            for record, _, _ in facts["records"]:
                found = await pep.search(
                    "action",
                    {
                        "subject": {"type": "user", "id": user},
                        "resource": {"type": "record", "id": record},
                    },
                )
                assert sorted(names(found)) == sorted(listed.get((user, record), []))


async def test_certification_decisions_are_the_same_each_time(pki: Pki) -> None:
    async with asked(certification(), pki) as pep:
        for subject, its, action, how, record, state, expected in table("certification")[
            "decisions"
        ]:
            question = {
                "subject": {"type": "user", "id": subject, "properties": its},
                "action": {"name": action, "properties": how},
                "resource": {"type": "record", "id": record, "properties": state},
                "context": {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"},
                "futureField": {"nested": True},
            }
            for _ in range(ROUNDS):
                assert await pep.evaluation(question) == {"decision": expected}, question


async def test_certification_searches_find_and_find_nothing(pki: Pki) -> None:
    facts = table("certification")
    async with asked(certification(), pki) as pep:
        for sought, question, wanted in facts["searches"]:
            assert set(wanted) <= set(names(await pep.search(sought, question))), question
        for sought, question in facts["nothing_found"]:
            assert names(await pep.search(sought, question)) == [], question


async def test_certification_refuses_what_is_incomplete(pki: Pki) -> None:
    async with asked(certification(), pki) as pep:
        for path, question in table("certification")["incomplete"]:
            answer = await pep.post(f"/access/v1/{path}", question)
            assert (answer.status, answer.reason) == (400, "INVALID_REQUEST"), question


async def test_pages_follow_one_another_and_belong_to_their_search(pki: Pki) -> None:
    question: dict[str, Any] = {
        "subject": {"type": "user"},
        "action": {"name": "view"},
        "resource": {"type": "record", "id": "105"},
    }
    found: list[str] = []
    async with asked(records(), pki) as pep:
        page: dict[str, Any] = {"limit": 2}
        while page:
            answer = await pep.search("subject", {**question, "page": page})
            assert answer["page"]["count"] == len(answer["results"]) <= 2
            found += names(answer)
            token = answer["page"]["next_token"]
            page = {"limit": 2, "token": token} if token else {}
        assert found == ["alice", "bob", "carol", "dan", "erin"]
        first = await pep.search("subject", {**question, "page": {"limit": 1}})
        token = first["page"]["next_token"]
        drafted = await pep.search("subject", {**question, "page": {"next_token": token}})
        assert names(drafted) == found[1:]
        other = {**question, "action": {"name": "edit"}}
        for document in (
            {**other, "page": {"token": token}},
            {**question, "page": {"token": token[4:]}},
            {**question, "page": {"token": "\N{SNOWMAN}"}},
            {**question, "page": {"token": 7}},
            {**question, "page": {"token": token, "next_token": ""}},
            {**question, "page": {"limit": 0}},
            {**question, "page": {"limit": True}},
            {**question, "page": "all"},
        ):
            answer = await pep.post("/access/v1/search/subject", document)
            assert answer.status == 400, document


async def several(pep: Enforcement, semantic: str | None, *items: object) -> list[bool]:
    question: dict[str, Any] = {"subject": ALICE, "evaluations": list(items)}
    if semantic is not None:
        question["options"] = {"evaluations_semantic": semantic}
    answer = await pep.post("/access/v1/evaluations", question)
    return [one["decision"] for one in answer.json["evaluations"]]


async def test_several_questions_end_where_their_semantic_says(pki: Pki) -> None:
    permitted = {"action": READ, "resource": RECORD}
    refused = {"action": {"name": "delete"}, "resource": RECORD}
    unreadable: dict[str, object] = {"action": READ}
    async with asked(certification(), pki) as pep:
        mixed = (permitted, refused, unreadable, permitted)
        assert await several(pep, None, *mixed) == [True, False, False, True]
        assert await several(pep, "execute_all", *mixed) == [True, False, False, True]
        assert await several(pep, "deny_on_first_deny", *mixed) == [True, False]
        assert await several(pep, "deny_on_first_deny", unreadable, permitted) == [False]
        assert await several(pep, "permit_on_first_permit", *mixed) == [True]
        assert await several(pep, "permit_on_first_permit", refused, "?", permitted, refused) == [
            False,
            False,
            True,
        ]


async def test_one_bad_question_among_several_is_refused_by_itself(pki: Pki) -> None:
    items = [{"resource": RECORD}, {}, 7, {"resource": {"type": "spaceship", "id": "1"}}]
    question = {"subject": ALICE, "action": READ, "evaluations": items}
    async with asked(certification(), pki) as pep:
        answer = await pep.post("/access/v1/evaluations", question)
    first, *bad = answer.json["evaluations"]
    assert first == {"decision": True}
    for one in bad:
        assert one["decision"] is False
        assert one["context"]["error"]["status"] == 400
        assert one["context"]["error"]["reason"] == "INVALID_REQUEST"
        assert one["context"]["error"]["violations"]


async def test_defaults_are_replaced_whole_but_for_what_identifies(pki: Pki) -> None:
    async with asked(certification(), pki) as pep:
        answer = await pep.post(
            "/access/v1/evaluations",
            {
                "subject": {**ALICE, "properties": {"role": "admin"}},
                "action": {"name": "write"},
                "resource": {"type": "record", "properties": {"status": "archived"}},
                "evaluations": [
                    {"resource": {"id": "record-1"}},
                    {"resource": {"id": "record-1", "properties": {"status": "archived"}}},
                    {"subject": ALICE, "resource": {"id": "record-2"}},
                ],
            },
        )
    assert [one["decision"] for one in answer.json["evaluations"]] == [True, True, False]


@pytest.mark.parametrize("evaluations", [{}, {"evaluations": []}])
async def test_without_several_questions_the_one_at_the_top_is_answered(
    pki: Pki, evaluations: dict[str, Any]
) -> None:
    question = {"subject": ALICE, "action": READ, "resource": RECORD, **evaluations}
    async with asked(certification(), pki) as pep:
        answer = await pep.post("/access/v1/evaluations", question)
    assert answer.json == {"decision": True}


@pytest.mark.parametrize(
    "wrong",
    [
        {"evaluations": {"1": {}}},
        {"evaluations": [{}] * 65},
        {"options": {"evaluations_semantic": "first_come"}},
        {"options": []},
        {"subject": "alice", "evaluations": [{}]},
    ],
)
async def test_what_is_wrong_with_the_whole_payload_refuses_it(
    pki: Pki, wrong: dict[str, Any]
) -> None:
    question = {"subject": ALICE, "action": READ, "resource": RECORD, **wrong}
    async with asked(certification(), pki) as pep:
        answer = await pep.post("/access/v1/evaluations", question)
    assert (answer.status, answer.reason) == (400, "INVALID_REQUEST")
