"""How an answer shows itself in a notebook: the picture with a colour per mask, the text under it."""

import base64
import html
import io

import numpy as np
from PIL import Image

from satlisa.geometry.overlay import fit_within, overlay, reduce_mask

_LONGEST = 1024  # longest side of the picture shown, in pixels: a notebook stores it in its file


def answer_picture(image: Image.Image, masks: np.ndarray) -> bytes:
    """PNG of an image with its masks (N, H, W) bool, reduced to a longest side of 1,024 pixels."""
    shown = fit_within(image, _LONGEST)
    if shown is not image:
        masks = np.array([reduce_mask(mask, shown.size) for mask in masks]).reshape(len(masks), *shown.size[::-1])
    stream = io.BytesIO()
    overlay(shown, masks).save(stream, "PNG")
    return stream.getvalue()


def answer_html(picture: bytes | None, text: str, scores: np.ndarray) -> str:
    """A figure of the picture, the answer's text and the number of masks; the text is escaped."""
    shown = ""
    if picture is not None:
        data = base64.b64encode(picture).decode()
        shown = f'<img src="data:image/png;base64,{data}" alt="image with masks" style="max-width: 100%">'
    masks = "no mask" if not len(scores) else "1 mask" if len(scores) == 1 else f"{len(scores)} masks"
    words = html.escape(text).replace("\n", "<br>")
    return f'<figure style="margin: 0">{shown}<figcaption>{words}<br><small>{masks}</small></figcaption></figure>'
