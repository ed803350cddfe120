"""Streams whose partial reads copy nothing: the same bytes in the same order, and the same ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
from tornado.iostream import StreamClosedError

from tornado_backups.web import direct_reads
from tornado_backups.web.direct_reads import DirectStream
from tornado_backups.web.giving_way import TURNS

KIB = 1024

gen_test = pytest.mark.gen_test(timeout=10)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection: ours and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with ours, client:
        yield ours, client


def opened(ours: socket.socket) -> DirectStream:
    return DirectStream(ours, max_buffer_size=256 * KIB, read_chunk_size=64 * KIB)


@gen_test
async def test_what_waits_in_the_socket_is_answered_at_once_and_never_more_than_asked_for(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = opened(pair[0])
    pair[1].sendall(b"0123456789")
    await asyncio.sleep(0.05)
    answer = stream.read_bytes(4, partial=True)
    assert isinstance(answer, asyncio.Future)
    assert answer.done(), "it was there already"
    assert await answer == b"0123"
    assert await stream.read_bytes(100, partial=True) == b"456789"
    stream.close()


@gen_test
async def test_what_is_not_there_yet_is_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = opened(pair[0])
    answer = asyncio.ensure_future(stream.read_bytes(100, partial=True))
    await asyncio.sleep(0.05)
    assert not answer.done()
    pair[1].sendall(b"late")
    assert await answer == b"late"
    stream.close()


@gen_test
async def test_what_was_read_ahead_comes_first(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = opened(pair[0])
    pair[1].sendall(b"head\r\n\r\nbody")
    assert await stream.read_until(b"\r\n\r\n") == b"head\r\n\r\n"
    pair[1].sendall(b" and more")
    await asyncio.sleep(0.05)
    assert await stream.read_bytes(100, partial=True) == b"body"
    assert await stream.read_bytes(100, partial=True) == b" and more"
    stream.close()


@gen_test
async def test_bytes_keep_their_order_whoever_read_them(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = opened(pair[0])
    data = b"".join(struct.pack(">I", number) for number in range(512 * KIB))
    loop = asyncio.get_running_loop()
    pair[1].setblocking(False)
    sending = asyncio.ensure_future(loop.sock_sendall(pair[1], data))
    received = bytearray()
    while len(received) < len(data):
        received += await stream.read_bytes(50_000, partial=True)
        if len(received) % 3 == 0:
            await asyncio.sleep(0.001)  # meanwhile the loop reads ahead to see whether the client is still there
        if len(received) < len(data):
            wanted = min(7, len(data) - len(received))
            received += await stream.read_bytes(wanted)
    await sending
    assert received == data
    stream.close()


@gen_test
async def test_the_end_is_an_end_and_not_an_empty_piece(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = opened(pair[0])
    pair[1].sendall(b"last")
    pair[1].close()
    await asyncio.sleep(0.05)
    assert await stream.read_bytes(100, partial=True) == b"last"
    with pytest.raises(StreamClosedError):
        await stream.read_bytes(100, partial=True)
    assert stream.closed()
    with pytest.raises(StreamClosedError):
        await stream.read_bytes(100, partial=True)


@gen_test
async def test_a_reset_is_told_and_not_taken_for_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = opened(pair[0])
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair[1].close()
    with pytest.raises(StreamClosedError) as caught:
        await stream.read_bytes(100, partial=True)
    assert isinstance(caught.value.real_error, ConnectionResetError)
    assert isinstance(stream.error, ConnectionResetError)


@gen_test
async def test_two_reads_at_a_time_are_refused_as_by_tornado(pair: tuple[socket.socket, socket.socket]) -> None:
    stream = opened(pair[0])
    first = asyncio.ensure_future(stream.read_bytes(100, partial=True))
    await asyncio.sleep(0.01)
    pair[1].sendall(b"for the first")
    with pytest.raises(AssertionError, match="Already reading"):
        stream.read_bytes(100, partial=True)
    assert await first == b"for the first"
    stream.close()


# -- lent memory -----------------------------------------------------------------------------------------------------


@gen_test
async def test_lent_memory_holds_the_body_and_what_follows_it_is_read_as_ever(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream, memory, filled = opened(pair[0]), bytearray(3 * 1024 * KIB), 0
    body = b"".join(struct.pack(">I", number) for number in range(512 * KIB))
    loop = asyncio.get_running_loop()
    pair[1].setblocking(False)
    sending = asyncio.ensure_future(loop.sock_sendall(pair[1], b"head\r\n\r\n" + body + b"next\r\n"))
    await stream.read_until(b"\r\n\r\n")

    def room() -> memoryview:
        return memoryview(memory)[filled : filled + 300_000]

    stream.lend(room, len(body))
    while filled < len(body):
        data = await stream.read_bytes(50_000, partial=True)
        assert data.obj is memory  # type: ignore[attr-defined]
        filled += len(data)
        if filled % 3 == 0:
            await asyncio.sleep(0.001)
    assert filled == len(body), "not a byte of what follows"
    assert memory[:filled] == body
    assert await stream.read_until(b"\r\n") == b"next\r\n"
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    await sending
    stream.close()


@gen_test
async def test_where_there_is_no_room_at_the_moment_the_bytes_come_all_the_same(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    stream = opened(pair[0])
    stream.lend(lambda: memoryview(b""), 10)
    pair[1].sendall(b"0123456789and more")
    assert await stream.read_bytes(100, partial=True) == b"0123456789"
    assert await stream.read_bytes(100, partial=True) == b"and more"
    stream.close()


@gen_test
async def test_a_drop_wakes_who_waits_for_lent_memory_to_be_filled(pair: tuple[socket.socket, socket.socket]) -> None:
    stream, memory = opened(pair[0]), bytearray(100)
    stream.lend(lambda: memoryview(memory), 100)
    reading = asyncio.ensure_future(stream.read_bytes(100, partial=True))
    await asyncio.sleep(0.02)
    pair[1].close()
    with pytest.raises(StreamClosedError):
        await reading


@gen_test
async def test_a_body_that_trickles_is_passed_on_as_it_comes(pair: tuple[socket.socket, socket.socket]) -> None:
    stream, memory = opened(pair[0]), bytearray(100)
    stream.lend(lambda: memoryview(memory), 100)
    for number in range(5):
        reading = asyncio.ensure_future(stream.read_bytes(100, partial=True))
        await asyncio.sleep(0.01)
        pair[1].sendall(b"%d" % number)
        assert await reading == b"%d" % number
    stream.take_back()
    stream.close()


@gen_test
async def test_more_than_tornado_would_buffer_may_come_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    stream, memory = opened(pair[0]), bytearray(2 * 1024 * KIB)
    stream.lend(lambda: memoryview(memory), len(memory))
    reading = asyncio.ensure_future(stream.read_bytes(100, partial=True))
    await asyncio.sleep(0.01)
    pair[1].setblocking(False)
    assert pair[1].send(bytes(len(memory))) > 256 * KIB, "more than the stream may buffer waits before it is looked at"
    assert 0 < len(await reading) <= 256 * KIB
    stream.close()


@gen_test
async def test_others_get_their_turns_between_two_large_reads(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_reads, "LARGE_BYTES", 32 * KIB)  # what waits in any socket
    stream, memory = opened(pair[0]), memoryview(bytearray(32 * KIB))
    pair[1].sendall(bytes(64 * KIB))
    await asyncio.sleep(0.05)
    stream.lend(lambda: memory, 64 * KIB)
    turns = 0

    async def small_request() -> None:
        nonlocal turns
        for _ in range(TURNS):
            await asyncio.sleep(0)
            turns += 1

    assert len(await stream.read_bytes(KIB, partial=True)) == 32 * KIB
    other = asyncio.ensure_future(small_request())
    assert len(await stream.read_bytes(KIB, partial=True)) == 32 * KIB
    assert turns >= TURNS - 1, "but for a turn that both take together"
    await other
    stream.close()
