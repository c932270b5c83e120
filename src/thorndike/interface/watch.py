"""Seeing a trained agent act: a film of its episodes, for a file, a notebook, or as it is played in a terminal."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax import random

from thorndike import evaluation, persistence
from thorndike.environments.pictures import Stage
from thorndike.errors import MissingExtraError, SettingError, shown

FILE = "watch.webp"
FORMATS = {".webp": "WEBP", ".gif": "GIF"}
PIXELS = 400  # of a film's longer side, at most
FILM_FPS = 30  # pictures that a second of a film has, at most
MOST_PICTURES = 1_000  # of a film: then it ends
MAX_FPS = 1_000.0
COLUMNS = 100  # of a terminal that a picture takes, at most
SHADES = 0xF8  # the bits of a colour that a terminal shows
QUALITY = 85  # of WebP's 100


class Agent(Protocol):
    """What is taken of an agent."""

    algorithm: Any
    state: Any


class Frame(NamedTuple):
    """One picture of an episode."""

    picture: np.ndarray  # RGB, uint8 [height, width, 3]
    episode: int  # from 1
    step: int
    total: float  # the return so far


class Film:
    """Pictures of greedy episodes. A notebook shows it; `save` writes it."""

    def __init__(self, fps: float) -> None:
        """An empty one. `fps` are steps a second; where these are more than anybody needs to see, some are left out."""
        self._pillow = _pillow()
        self.every = math.ceil(fps / FILM_FPS)
        self.fps = fps / self.every
        self.images: list[Any] = []
        self.returns: list[float] = []  # of the episodes, the last of which may be cut

    @property
    def full(self) -> bool:
        return len(self.images) >= MOST_PICTURES

    def add(self, frame: Frame) -> None:
        """Take a picture, where it is one that is kept."""
        self.returns[frame.episode - 1 :] = [frame.total]
        if frame.step % self.every == 0:
            image = self._pillow.fromarray(frame.picture)
            image.thumbnail((PIXELS, PIXELS))
            self.images.append(image)

    def save(self, path: str | Path) -> Path:
        """Write an animation, .webp or .gif, that begins again at its end."""
        path = check_name(path)
        return persistence.write_anywhere(path, self._encoded(FORMATS[path.suffix.lower()]))

    def _encoded(self, kind: str) -> bytes:
        data, first = io.BytesIO(), self.images[0]
        options = {"quality": QUALITY, "method": 2} if kind == "WEBP" else {"optimize": False}
        first.save(
            data, kind, save_all=True, append_images=self.images[1:], duration=round(1000 / self.fps), loop=0, **options
        )
        return data.getvalue()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        text = base64.b64encode(self._encoded("WEBP")).decode()
        return f'<img alt="{self!r}" src="data:image/webp;base64,{text}">'

    def __repr__(self) -> str:
        returns = ", ".join(f"{total:,.1f}" for total in self.returns)
        return f"Film of {len(self.images)} pictures, return {returns}"


def check_name(path: str | Path) -> Path:
    """The path of a film; SettingError where it can be none."""
    return persistence.file_of("film", FORMATS, path)


def check_fps(fps: Any) -> None:
    """SettingError for what cannot be a number of steps a second."""
    number = isinstance(fps, (int, float, np.number)) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps <= MAX_FPS):
        raise SettingError(f"fps must be a number above 0 and at most {MAX_FPS:g}, got {shown(fps)}")


def filmed(frames: Iterator[Frame], fps: float, live: bool) -> Film:
    """A film of all frames, or of those until it is full; with `live` shown in the terminal, until Ctrl-C, too."""
    film = Film(fps)
    with contextlib.suppress(KeyboardInterrupt) if live else contextlib.nullcontext():
        for frame in _live(frames, fps) if live else frames:
            film.add(frame)
            if film.full:
                break
    return film


def frames(stage: Stage, agent: Agent, key: jax.Array, episodes: int, longest: int) -> Iterator[Frame]:
    """Greedy episodes, picture by picture: the state that each begins in, then that after each step."""
    for episode in range(episodes):
        episode_key = random.fold_in(key, episode)
        moments = evaluation.play(agent.algorithm, stage.environment, agent.state, episode_key, longest)
        for step, moment in enumerate(moments):
            if not (moment.ended and stage.environment.compiled):  # whose state is by then another episode's
                picture = stage.picture(moment.env_state)
            yield Frame(picture, episode + 1, step, moment.total)


def _live(frames: Iterator[Frame], fps: float) -> Iterator[Frame]:
    """The same frames, each drawn in the terminal at its time."""
    from rich.live import Live

    with Live(auto_refresh=False, transient=True) as live:
        began = time.monotonic()
        for number, frame in enumerate(frames):
            late = time.monotonic() - began - number / fps
            if late < 0:
                time.sleep(-late)
            if late < 1 / fps:  # else it is past already
                live.update(Cells(frame, _pillow()), refresh=True)
            yield frame


class Cells:
    """A frame as characters of a terminal, two pixels each: the upper half of a block, and what is behind it."""

    def __init__(self, frame: Frame, pillow: Any) -> None:
        """Nothing is drawn yet: the terminal's size is asked for when it is."""
        self.frame, self.pillow = frame, pillow

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        height, width = self.frame.picture.shape[:2]
        scale = min(min(options.max_width, COLUMNS) / width, 2 * max(1, console.size.height - 2) / height)
        columns, rows = max(1, int(width * scale)), max(1, int(height * scale) // 2)
        image = self.pillow.fromarray(self.frame.picture).resize((columns, 2 * rows), self.pillow.Resampling.BOX)
        pixels = np.asarray(image) & SHADES
        for pair in np.concatenate([pixels[::2], pixels[1::2]], -1).tolist():
            for colors, cells in itertools.groupby(pair):  # of equal ones a terminal is told once
                yield Segment("▀" * len(list(cells)), _style(*colors))
            yield Segment.line()
        yield Segment(f"episode {self.frame.episode}  step {self.frame.step}  return {self.frame.total:,.1f}")


@functools.lru_cache(maxsize=10_000)
def _style(*colors: int) -> Any:
    """A style from the red, green and blue of the upper half and of the lower one."""
    from rich.color import Color
    from rich.style import Style

    return Style(color=Color.from_rgb(*colors[:3]), bgcolor=Color.from_rgb(*colors[3:]))


def _pillow() -> Any:
    """Pillow's Image module."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError('pictures need Pillow: pip install "thorndike[watch]"') from error
    return Image
