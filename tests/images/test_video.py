"""Frames of videos: which ones, their times, bad files, and a stream over the loopback that does not wait."""

import socket
import struct
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from anomalens.errors import ConfigError, InputError
from anomalens.images.video import Frame, Video, interval_of, is_live, is_video, newest, seconds_of
from clips import STEP, encode, write_clip


@pytest.mark.parametrize(("codec", "kind"), [("mpeg4", "mp4"), ("mpeg2video", "mpegts"), ("mpeg4", "avi")])
def test_frames_are_numbered_and_timed(tmp_path: Path, codec: str, kind: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", codec=codec, kind=kind)
    video = Video(str(clip), every=0.5)
    frames = list(video.frames())
    assert [frame.number for frame in frames] == [0, 13, 25, 38]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.52, 1, 1.52], abs=1e-3)
    assert video.expected() == 4
    for frame in frames:
        assert frame.rgb.shape == (48, 64, 3)
        assert abs(float(frame.rgb[:, 2:12].mean()) - frame.number * STEP) < 12
    assert len(list(Video(str(clip)).frames())) == Video(str(clip)).expected() == 50
    assert [frame.number for frame in Video(str(clip), 0.5, until=1.0).frames()] == [0, 13]


def test_what_is_a_video(tmp_path: Path) -> None:
    for name in ("rtsp://user:pass@camera/1", "RTSP://camera", "http://host/x.ts", "udp://127.0.0.1:9", "/dev/video0"):
        assert is_live(name)
        assert is_video(name)
    assert not is_video(tmp_path / "nothing.mp4")
    assert is_video(write_clip(tmp_path / "a.MP4", 1))
    assert not is_video("s3://bucket/clip.jpg")
    assert Video("rtsp://user:p@ss@camera:554/1?x=2").shown == "rtsp://camera:554/1?x=2"


def test_durations() -> None:
    assert [seconds_of(text) for text in ("1s", "250ms", "1.5m", "2H", " .5s ")] == [1, 0.25, 90, 7200, 0.5]
    assert (interval_of("frame"), interval_of("2s")) == (0, 2)
    for text in ("", "1", "s", "-1s", "0s", "1 d", "nan s", "1e3s"):
        with pytest.raises(ConfigError, match="is no duration"):
            seconds_of(text)


def test_bad_videos_are_one_line(tmp_path: Path) -> None:
    whole = encode(20)
    playlist = b"#EXTM3U\n#EXTINF:10.0,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"
    contents = {"empty": b"", "text": b"no video", "cut": whole[: len(whole) // 2], "list": playlist}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.mp4'?: cannot be opened as a video"):
            list(Video(str(tmp_path / f"{name}.mp4")).frames())
    for path, reason in (
        (tmp_path, "is a folder"),
        (tmp_path / "no.mp4", "No such file"),
        (Path("/dev/zero"), "regular"),
    ):
        with pytest.raises(InputError, match=reason):
            list(Video(str(path)).frames())


def test_damaged_parts_are_passed_over(tmp_path: Path) -> None:
    whole = bytearray(encode(50, codec="mpeg2video", kind="mpegts"))
    whole[4000:6000] = bytes(2000)
    (tmp_path / "clip.ts").write_bytes(whole)
    assert 20 < len(list(Video(str(tmp_path / "clip.ts")).frames())) <= 50


def test_frames_stand_as_the_video_says(tmp_path: Path) -> None:
    plain = encode(2)
    start = plain.index(b"tkhd") + 44
    lying = next(Video(str(write_clip(tmp_path / "plain.mp4", 2))).frames()).rgb.astype(int)
    turned = {
        (0, 1, -1, 0): np.rot90(lying, -1),
        (-1, 0, 0, -1): np.rot90(lying, 2),
        (0, -1, 1, 0): np.rot90(lying),
        (-1, 0, 0, 1): lying[:, ::-1],
        (1, 0, 0, -1): lying[::-1],
        (0, 1, 1, 0): lying.transpose(1, 0, 2),
    }
    for (a, b, c, d), upright in turned.items():
        matrix = struct.pack(">9i", *(part << 16 for part in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
        (tmp_path / "turned.mp4").write_bytes(plain[:start] + matrix + plain[start + 36 :])
        frame = next(Video(str(tmp_path / "turned.mp4")).frames())
        assert frame.rgb.shape == upright.shape
        assert np.abs(frame.rgb - upright).max() <= 2, (a, b, c, d)


def test_a_file_that_is_cut_off_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = encode(100, kind="matroska")
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert 10 < len(list(Video(str(tmp_path / "cut.mkv")).frames())) < 90
    assert "of 4.0 s; the file may be cut off" in caplog.text
    caplog.clear()
    (tmp_path / "whole.mkv").write_bytes(whole)
    assert len(list(Video(str(tmp_path / "whole.mkv")).frames())) == 100
    list(Video(str(tmp_path / "cut.mkv"), until=0.5).frames())
    assert not caplog.text


def test_a_file_without_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "none.mp4", 0, options={"movflags": "empty_moov+frag_keyframe"})
    with pytest.raises(InputError, match=r"none.mp4'?: holds no frame that can be read"):
        Video(str(clip)).expected()


def test_times_of_a_variable_rate(tmp_path: Path) -> None:
    times = [0, 40, 80, 1000, 1500, 4000, 4010, 9000, 9500, 10_000]
    clip = write_clip(tmp_path / "clip.mkv", 10, kind="matroska", milliseconds=times)
    assert [(frame.number, frame.time) for frame in Video(str(clip), 1.0).frames()] == [
        (0, 0.0),
        (3, 1.0),
        (5, 4.0),
        (7, 9.0),
        (9, 10.0),
    ]


def test_frames_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalens.images.video.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(InputError, match="64 x 48 pixels are larger"):
        list(Video(str(write_clip(tmp_path / "clip.mp4", 2))).frames())


@contextmanager
def served(content: bytes, pause: float = 0.0) -> Iterator[str]:
    """Serve bytes once over the loopback, in pieces with pauses between them; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            try:
                connection, _ = server.accept()
                with connection:
                    for start in range(0, len(content), 188 * 7):
                        connection.sendall(content[start : start + 188 * 7])
                        time.sleep(pause)
            except OSError:
                return

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def test_a_stream_over_the_loopback() -> None:
    with served(encode(50, codec="mpeg2video", kind="mpegts"), pause=0.01) as address:
        frames = list(Video(address, every=0.2).frames())
    # Frames may have been dropped, because this test took long; none comes twice or out of order.
    numbers = [frame.number for frame in frames]
    assert numbers
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(0, 50, 5))


def test_what_comes_by_itself_does_not_wait_and_the_newest_frame_counts() -> None:
    taken, all_came = threading.Event(), threading.Event()

    def camera() -> Generator[Frame]:
        for number in range(50):
            yield Frame(number, number / 25, np.zeros((2, 2, 3), np.uint8))
            if number == 0:
                taken.wait(20)
        all_came.set()

    frames = newest(camera())
    assert next(frames).number == 0
    taken.set()
    assert all_came.wait(20)
    assert [frame.number for frame in frames] == [49]


def test_an_error_of_a_live_source_comes_after_its_last_frame() -> None:
    def camera() -> Generator[Frame]:
        yield Frame(0, 0.0, np.zeros((2, 2, 3), np.uint8))
        raise InputError("unplugged")

    frames = newest(camera())
    assert next(frames).number == 0
    with pytest.raises(InputError, match="unplugged"):
        next(frames)


def test_a_stream_that_nobody_wants_any_more_ends_at_once() -> None:
    with served(encode(50, codec="mpeg2video", kind="mpegts"), pause=0.05) as address:
        frames = Video(address).frames()
        next(frames)
        frames.close()


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(InputError, match=f"127.0.0.1:{port}'?: cannot be opened as a video"):
        list(Video(f"tcp://user:secret@127.0.0.1:{port}").frames())
