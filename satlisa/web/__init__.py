"""A page in the browser: drop an image, ask, see the masks. Needs the extra `web` (gradio)."""
