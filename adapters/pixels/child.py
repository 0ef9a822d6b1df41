"""The process that decodes, encodes and renders for a door: one job after another, within bounds (see the pool).

Started as ``python -m adapters.pixels.child MEMORY_BYTES CPU_S IDLE_S FD``. It knows no file and no other socket.
"""

from __future__ import annotations

import json
import math
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from adapters.pixels.image import Image
from adapters.pixels.pool import HEAD, MAX_HEAD_BYTES
from hub.errors import Category, HubError

Answer = tuple[dict[str, Any], bytes]


def main(arguments: list[str]) -> int:
    """Serve until the door closes its end or nothing has come for a while; returns the exit status."""
    memory_bytes, cpu_s, idle_s, descriptor = int(arguments[0]), float(arguments[1]), float(arguments[2]), arguments[3]
    _bound(memory_bytes)
    with socket.socket(fileno=int(descriptor)) as door:
        while True:
            door.settimeout(idle_s)
            try:
                head_bytes, data_bytes = HEAD.unpack(_receive(door, HEAD.size))
            except (TimeoutError, EOFError, OSError):
                return 0
            door.settimeout(None)
            _bound_time(cpu_s)
            answer, data = _answer(door, head_bytes, data_bytes)
            encoded = json.dumps(answer).encode()
            door.sendall(HEAD.pack(len(encoded), len(data)) + encoded)
            door.sendall(data)


def _bound(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _bound_time(cpu_s: float) -> None:
    # The limit counts from the start of the process, so each job moves it on by its own share.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = usage.ru_utime + usage.ru_stime
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(spent + cpu_s), resource.RLIM_INFINITY))


def _receive(door: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = door.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return bytes(data)


def _answer(door: socket.socket, head_bytes: int, data_bytes: int) -> Answer:
    if head_bytes > MAX_HEAD_BYTES:
        raise EOFError
    head = json.loads(_receive(door, head_bytes))
    data = _receive(door, data_bytes)
    try:
        parts, at = [], 0
        for size in head["sizes"]:
            parts.append(data[at : at + size])
            at += size
        del data
        return _WORK[head["do"]](head, parts)
    except HubError as error:
        return _trouble(error.category, error.message, error.where), b""
    except MemoryError:
        return _trouble(Category.UNSUPPORTED, "The image needs more memory than it may have.", "(7FE0,0010)"), b""
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever a codec raises is the image's fault
        # The text of a stranger's exception may quote the object; its type says enough.
        said = f"The pixels cannot be decoded or rendered ({type(error).__name__})."
        return _trouble(Category.UNSUPPORTED, said, "(7FE0,0010)"), b""


def _trouble(category: Category, message: str, where: str) -> dict[str, Any]:
    return {"error": {"category": category.value, "message": message, "where": where}}


def _frame(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.codec import decode, encode
    from adapters.pixels.syntaxes import LOSSY

    array, image = decode(Image(**head["image"]), head["syntax"], parts[0])
    if head["target"] in LOSSY:
        from adapters.pixels import lossy

        data, image = lossy.encode(array, image, head["target"])
    else:
        data, image = encode(array, image, head["target"])
    return {"photometric": image.photometric, "planar": image.planar}, data


def _picture(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.codec import decode
    from adapters.pixels.look import Look
    from adapters.pixels.presentation import State
    from adapters.pixels.render import picture

    header, frame, *told = parts
    state = State.of(told, head["instance"], head["number"]) if told else None
    array, image = decode(Image(**head["image"]), head["syntax"], frame)
    del parts[1:]
    return {}, picture(array, image, header, head["number"], Look.of(head["look"]), state)


def _animation(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.render import animation

    return {}, animation(parts, duration_ms=head["duration_ms"])


def _squeeze(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.squeeze import squeeze

    base, bits, data = squeeze(Image(**head["image"]), head["target"], parts[0])
    return {"base": base, "bits": bits}, data


def _restore(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.squeeze import restore

    return {}, restore(Image(**head["image"]), head["syntax"], head["base"], head["bits"], parts[0])


def _film(head: Mapping[str, Any], _parts: list[bytes]) -> Answer:
    from adapters.pixels.look import Look
    from adapters.pixels.render import film

    return {}, film(Look.of(head["look"]))


def _film_frames(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.film import Film, short

    film = Film(parts[0], Image(**head["image"]))
    found = [array.tobytes() for _, array in film.frames(head["numbers"])]
    if len(found) < len(head["numbers"]):
        raise short(film.count, head["numbers"][len(found)], head["count"])
    return {"image": film.shown.as_json()}, b"".join(found)


def _film_picture(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.film import Film, short
    from adapters.pixels.look import Look
    from adapters.pixels.render import picture

    header, stream = parts
    film = Film(stream, Image(**head["image"]))
    for number, array in film.frames([head["number"]]):
        return {}, picture(array, film.shown, header, number, Look.of(head["look"]))
    raise short(film.count, head["number"], head["count"])


def _film_moving(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.moving import of_film

    header, stream = parts
    return of_film(stream, Image(**head["image"]), header, head)


def _clip(head: Mapping[str, Any], parts: list[bytes]) -> Answer:
    from adapters.pixels.moving import of_pictures

    return {}, of_pictures(parts, head["durations_us"])


_WORK: Mapping[str, Callable[[Mapping[str, Any], list[bytes]], Answer]] = {
    "frame": _frame,
    "picture": _picture,
    "animation": _animation,
    "film": _film,
    "film-frames": _film_frames,
    "film-picture": _film_picture,
    "film-moving": _film_moving,
    "clip": _clip,
    "squeeze": _squeeze,
    "restore": _restore,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
