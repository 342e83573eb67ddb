"""Questions that travel together: each is answered for itself, in time, or refused."""

import asyncio
import functools
from collections.abc import Callable, Sequence

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from broker.batching import Batcher, Bounds
from shared.errors import Broken, InvalidRequest, Overloaded, Unavailable

BOUNDS = Bounds(items=4, size=1000, waiting=6, messages=1, patience_s=60)


class Other:
    """The other side: answers in capitals, once it may."""

    def __init__(self) -> None:
        self.heard: list[list[str]] = []
        self.within_s = 0.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def send(self, asked: list[StringValue], within_s: float) -> Sequence[StringValue]:
        self.within_s = within_s
        self.heard.append([one.value for one in asked])
        await self.may_answer.wait()
        if any(one.value == "bad" for one in asked):
            raise InvalidRequest("INVALID_REQUEST", "one of them is bad")
        if any(one.value == "down" for one in asked):
            raise Unavailable("SERVICE_UNAVAILABLE", "down")
        answers = [StringValue(value=one.value.upper()) for one in asked]
        return answers[1:] if asked[0].value == "short" else answers


async def ask(batcher: Batcher[StringValue, StringValue], *values: str) -> list[object]:
    asked = [batcher.ask(StringValue(value=value)) for value in values]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [one.value if isinstance(one, StringValue) else type(one) for one in answers]


async def test_what_comes_together_goes_together_and_comes_back_in_order() -> None:
    other = Other()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS)
    assert await ask(batcher, "a", "b", "c", "d", "e") == ["A", "B", "C", "D", "E"]
    assert other.heard == [["a", "b", "c", "d"], ["e"]]


async def test_one_bad_question_does_not_sink_the_others() -> None:
    batcher = Batcher[StringValue, StringValue]("OTHER", Other().send, BOUNDS)
    assert await ask(batcher, "a", "bad", "c") == ["A", InvalidRequest, "C"]
    assert await ask(batcher, "a", "down") == [Unavailable, Unavailable]
    assert await ask(batcher, "short", "b") == [Broken, Broken]


async def test_a_message_is_full_by_its_bytes_too() -> None:
    other = Other()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS)
    await ask(batcher, "a" * 600, "b" * 600, "c")
    assert [len(message) for message in other.heard] == [2, 1]


async def test_there_is_a_bound_to_what_waits() -> None:
    other = Other()
    other.may_answer.clear()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS)
    asking = [asyncio.create_task(ask(batcher, str(number))) for number in range(8)]
    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [[Overloaded]] * 2
    other.may_answer.set()
    answered = [(await task)[0] for task in asking if task not in done]
    assert answered == list("012345")


async def test_whoever_gives_up_does_not_sink_the_others() -> None:
    other = Other()
    other.may_answer.clear()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS)
    one, two = (asyncio.create_task(ask(batcher, value)) for value in "ab")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one, 0)
    other.may_answer.set()
    assert await two == ["B"]
    assert await ask(batcher, "c") == ["C"]


async def test_what_waited_too_long_is_not_asked() -> None:
    other = Other()
    bounds = Bounds(items=4, size=1000, waiting=6, messages=1, patience_s=-1)
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, bounds)
    assert await ask(batcher, "a") == [Unavailable]
    assert other.heard == []


async def test_few_wait_for_the_message_that_is_under_way() -> None:
    other = Other()
    other.may_answer.clear()
    bounds = Bounds(items=4, size=1000, waiting=6, messages=2, patience_s=60, alongside=3)
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, bounds)
    first = asyncio.create_task(ask(batcher, "a"))
    await turns()
    few = asyncio.create_task(ask(batcher, "b", "c"))
    await turns()
    assert other.heard == [["a"]]
    enough = asyncio.create_task(ask(batcher, "d"))
    await turns()
    assert other.heard == [["a"], ["b", "c", "d"]]
    last = asyncio.create_task(ask(batcher, "e"))
    other.may_answer.set()
    assert [await one for one in (first, few, enough, last)] == [["A"], ["B", "C"], ["D"], ["E"]]


async def test_after_a_message_that_carried_several_the_next_waits_for_more() -> None:
    other, timers = Other(), Timers()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS, lambda: 10)
    await ask(batcher, "a", "b")
    timers.hold()
    first = asyncio.create_task(ask(batcher, "c"))
    await turns()
    assert other.heard == [["a", "b"]]
    # A message that is full waits for nothing.
    rest = asyncio.create_task(ask(batcher, "d", "e", "f"))
    assert [await first, await rest] == [["C"], ["D", "E", "F"]]
    assert other.heard == [["a", "b"], ["c", "d", "e", "f"]]


async def test_a_message_that_waited_for_more_goes_without_them() -> None:
    other = Other()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS, lambda: 10)
    await ask(batcher, "a", "b")
    assert await ask(batcher, "c") == ["C"]


async def test_a_message_waits_longer_the_more_searches_are_under_way_up_to_a_bound() -> None:
    for under_way, lingers_s in ((0, 0), (10, 0.003), (60, 0.018), (70, 0.02), (5_000, 0.02)):
        timers = Timers()
        batcher = Batcher[StringValue, StringValue](
            "OTHER", Other().send, BOUNDS, functools.partial(int, under_way)
        )
        await ask(batcher, "a", "b")
        timers.hold()
        asked = asyncio.create_task(ask(batcher, "c"))
        await turns()
        assert timers.delays_s == [pytest.approx(lingers_s)]
        timers.let_go()
        assert await asked == ["C"]


async def test_after_a_message_that_carried_one_question_the_next_goes_at_once() -> None:
    timers = Timers()
    batcher = Batcher[StringValue, StringValue]("OTHER", Other().send, BOUNDS, lambda: 10)
    timers.hold()
    assert await ask(batcher, "a") == ["A"]
    assert await ask(batcher, "b") == ["B"]


class Timers:
    """What the running loop is to do later, from when it is held."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._call_later = self._loop.call_later
        self.delays_s: list[float] = []
        self._waiting: list[Callable[[], object]] = []

    def hold(self) -> None:
        """Nothing happens later any more."""

        def held(delay_s: float, call: Callable[[], object]) -> asyncio.TimerHandle:
            self.delays_s.append(delay_s)
            self._waiting.append(call)
            return self._call_later(3600, call)

        self._loop.call_later = held  # type: ignore[assignment,method-assign]

    def let_go(self) -> None:
        """What was to happen happens."""
        del self._loop.call_later
        for call in self._waiting:
            call()


async def turns() -> None:
    """Lets whatever can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_message_is_begun_as_long_as_the_last_of_its_askers_waits() -> None:
    other = Other()
    batcher = Batcher[StringValue, StringValue]("OTHER", other.send, BOUNDS)
    now = asyncio.get_running_loop().time()
    await batcher.ask(StringValue(value="a"), now + 20)
    assert 0 < other.within_s <= 20
    await asyncio.gather(
        batcher.ask(StringValue(value="a"), now + 20), batcher.ask(StringValue(value="b"), now + 40)
    )
    assert 20 < other.within_s <= 40
    await batcher.ask(StringValue(value="a"), now + 600)
    assert other.within_s <= BOUNDS.patience_s
    with pytest.raises(Unavailable):
        await batcher.ask(StringValue(value="a"), now - 1)
    assert len(other.heard) == 3, "nothing is asked for somebody who has gone"
