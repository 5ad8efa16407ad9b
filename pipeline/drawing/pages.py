"""HTML pages that need no file beside them: one frame, one style, pictures as addresses."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image


def render_page(template: str, room: str, **content: Any) -> str:
    """Fills a template that extends `page.html.j2`.

    Args:
        template: file name of the template.
        room: package that it lies in, such as `pipeline.report`.
        content: what the template uses; a name that is missing is an error.
    """
    rooms = (room, "pipeline.drawing")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in rooms]),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(**content)


def data_uri(image: np.ndarray, kind: str = "jpeg") -> str:
    """Encodes pixels (uint8 (H, W, 3)) as a `data:` address, `kind` being jpeg or png."""
    buffer = BytesIO()
    options: dict[str, Any] = {"quality": 88, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(image).save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
