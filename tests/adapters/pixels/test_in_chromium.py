"""The MP4 files that are made here play in a browser, with the right length, size, pictures and colours."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

from adapters.pixels.look import Look
from adapters.pixels.stored import StoredPixels
from tests.conftest import require_tool
from tests.support.films import COLUMNS, ROWS, SYNTAXES, shows, stream, video_object
from tests.support.pixels import pool

pytestmark = [pytest.mark.tool("chromium"), pytest.mark.timeout(300)]

#: Goes to the middle of a frame and returns what the browser then shows, as a PNG.
SHOW = """async ([source, times]) => {
  const video = document.createElement("video");
  video.muted = true;
  document.body.append(video);
  await new Promise((done, failed) => {
    video.onloadeddata = done;
    video.onerror = () => failed(new Error(video.error.message));
    video.src = source;
  });
  const ready = video.readyState, canvas = document.createElement("canvas"), pictures = [];
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  for (const time of times) {
    // Sought means decoded; that the picture can be drawn is told by the call for the next frame that is presented.
    await new Promise((done) => { video.requestVideoFrameCallback(done); video.currentTime = time; });
    canvas.getContext("2d").drawImage(video, 0, 0);
    pictures.push(canvas.toDataURL("image/png"));
  }
  return {ready, duration: video.duration, size: [canvas.width, canvas.height], pictures};
}"""


def test_a_film_made_here_plays_in_chromium() -> None:
    from playwright.sync_api import sync_playwright

    children = pool()
    try:
        data = video_object(stream("mpeg2.ts"), SYNTAXES["mpeg2.ts"])
        with StoredPixels(io.BytesIO(data), max_frame_bytes=1 << 20) as stored:
            assert stored.film is not None
            times = [40_000] * 5 + [100_000] * 5
            film, _ = stored.film.moving(children, None, Look(media_type="video/mp4"), times, most=10)
    finally:
        children.close()
    source = "data:video/mp4;base64," + base64.b64encode(film).decode()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_tool("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        # Frames 1, 4, 6 and 10, each in the middle of its time.
        found: dict[str, Any] = page.evaluate(SHOW, [source, [0.02, 0.14, 0.25, 0.65]])
        browser.close()
    assert found["ready"] >= 2
    assert found["duration"] == pytest.approx(0.7)
    assert found["size"] == [COLUMNS, ROWS]
    for number, picture in zip((1, 4, 6, 10), found["pictures"], strict=True):
        shown = Pictures.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).convert("RGB")
        assert shows(np.asarray(shown), number)
