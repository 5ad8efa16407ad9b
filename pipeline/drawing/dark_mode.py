"""Charts that follow the reader's light or dark setting, as pages do."""

import colorsys
import re

INK_LIGHT, INK_DARK = "#1c2127", "#e4e7ea"  # with GROUND_DARK, those of page.html.j2
GROUND_DARK = "#15191d"
CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3, asks as much of text
MIDDLE = (0.4, 0.75)  # lightness of greys that are seen on both grounds
GREYISH = 0.2  # saturation below which a colour is ink, ground or between


def add_dark_mode(svg: bytes) -> bytes:
    """An SVG file whose colours change with `prefers-color-scheme`; light is as it was.

    Args:
        svg: A file with its colours in `style` attributes as `#rrggbb`, as matplotlib writes it.
    """
    colours = sorted(set(re.findall(rb"(?:fill|stroke): (#[0-9a-f]{6})", svg)))
    rules = [
        f'[style*="{name}: {light}"]{{{name}:{on_dark(light)}!important}}'
        for light in (colour.decode() for colour in colours)
        for name in ("fill", "stroke")
    ]
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"
    return re.sub(rb"(<svg\b[^>]*>)", lambda tag: tag[1] + style.encode(), svg, count=1)


def on_dark(colour: str) -> str:
    """What stands for a colour (`#rrggbb`) on the dark ground.

    Light greys go towards the ground and dark ones towards the ink; middle ones, which are seen
    on both, and bright colours stay. Other colours keep their hue and are made lighter until they
    can be read.
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*_shares(colour))
    if saturation < GREYISH and MIDDLE[0] <= lightness <= MIDDLE[1]:
        return colour
    if saturation < GREYISH or lightness in (0, 1):
        pairs = zip(_shares(INK_DARK), _shares(GROUND_DARK), strict=True)
        return _hex(tuple(ink + (ground - ink) * lightness for ink, ground in pairs))
    while contrast(colour, GROUND_DARK) < CONTRAST:
        lightness += 0.01
        colour = _hex(colorsys.hls_to_rgb(hue, lightness, saturation))
    return colour


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours (`#rrggbb`) after WCAG 2.2, 1 to 21."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _shares(colour)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _shares(colour: str) -> tuple[float, float, float]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red / 255, green / 255, blue / 255


def _hex(shares: tuple[float, ...]) -> str:
    return "#" + bytes(round(255 * min(1.0, share)) for share in shares).hex()
