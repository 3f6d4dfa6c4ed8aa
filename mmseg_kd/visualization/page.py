"""One HTML page that needs no other file. What it is told is text: every function here escapes it."""
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from .theme import theme_css

__all__ = ['PictureRow', 'Section', 'keys', 'page', 'picture_grid', 'scales', 'sources', 'table',
           'tiles']

_COLOR = re.compile(r'#[0-9a-fA-F]{3,8}|rgb\(\d+,\d+,\d+\)')
_CSS = '''
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);line-height:1.5;font-size:16px}
main{max-width:1180px;margin:0 auto;padding:0 24px 64px}
header{padding:40px 0 8px}
h1{font-size:clamp(1.7rem,4.5vw,2.6rem);line-height:1.15;margin:0 0 8px;letter-spacing:-.02em;text-wrap:balance}
header p{color:var(--muted);margin:0;max-width:70ch}
section{margin-top:56px}
h2{font-size:clamp(1.2rem,3vw,1.55rem);line-height:1.25;margin:0 0 4px;letter-spacing:-.01em;text-wrap:balance}
h2 small{display:block;font-size:.8rem;font-weight:600;letter-spacing:.06em;text-transform:uppercase;color:var(--muted)}
h3{font-size:1rem;margin:24px 0 4px}
.note{color:var(--muted);margin:0 0 16px;max-width:80ch;font-size:.95rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;margin:24px 0 0}
.tile{background:var(--card);border-radius:10px;padding:14px 16px;border-left:5px solid var(--color)}
.tile b{display:block;font-size:2rem;line-height:1.15;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.tile span{display:block;font-size:.9rem;font-weight:600;overflow-wrap:anywhere}
.tile small{color:var(--muted);font-size:.85rem}
.scroll{overflow-x:auto}
.figure svg{display:block;width:100%;min-width:660px;height:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--muted);font-weight:600;white-space:normal;vertical-align:bottom;line-height:1.25}
td:last-child,th:last-child{padding-right:0}
th:first-child,td:first-child{text-align:left;padding-left:0}
td i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:8px;background:var(--color)}
.grid{display:grid;gap:6px 8px;min-width:min(720px,calc(var(--n)*180px))}
.grid figure{margin:0}
.grid figcaption{font-size:.82rem;color:var(--muted);font-weight:600}
.grid img{display:block;width:100%;image-rendering:pixelated;border-radius:3px}
.grid p{grid-column:1/-1;margin:14px 0 0;font-size:.95rem;font-weight:600;position:sticky;left:0}
.grid p{width:max-content;max-width:90vw}
.keys{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:.82rem;color:var(--muted);margin:12px 0 0;padding:0}
.keys li{list-style:none;display:flex;align-items:center;gap:6px}
.keys i{width:13px;height:13px;border-radius:3px;background:var(--color);border:1px solid var(--line)}
.ramp{height:10px;border-radius:3px;width:120px;display:inline-block;border:1px solid var(--line)}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin-top:20px;font-size:.9rem}
nav a{color:var(--muted)}
footer{margin-top:64px;color:var(--muted);font-size:.85rem;border-top:1px solid var(--line);padding-top:12px}
code{overflow-wrap:anywhere}
@media(max-width:600px){main{padding:0 14px 40px}section{margin-top:40px}.tile b{font-size:1.6rem}}
@media print{section{break-inside:avoid}}
'''


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        kicker: Its subject, in a word or two; the page's navigation.
        title: What it shows, as a sentence.
        note: How to read it.
        body: HTML.
    """

    kicker: str
    title: str
    note: str
    body: str


class PictureRow(NamedTuple):
    """A row of pictures with a sentence above it."""

    caption: str
    pictures: Sequence[str]


def tiles(items: Sequence[tuple[str, str, str, str]]) -> str:
    """Large numbers: (colour, name, number, remark) each."""
    return '<div class="tiles">' + ''.join(
        f'<div class="tile" style="--color:{_variable(color)}"><span>{escape(name)}</span><b>{escape(number)}</b>'
        f'<small>{escape(remark)}</small></div>' for color, name, number, remark in items) + '</div>'


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table; a row is a colour and its cells, the first of them a name."""
    head = ''.join(f'<th>{escape(name)}</th>' for name in header)
    body = ''.join(
        f'<tr><td style="--color:{_variable(color)}"><i></i>{escape(cells[0])}</td>'
        + ''.join(f'<td>{escape(cell)}</td>' for cell in cells[1:]) + '</tr>' for color, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def picture_grid(columns: Sequence[str], rows: Sequence[PictureRow], across: int = 3) -> str:
    """Pictures with their names, row by row.

    Args:
        columns: The name of each picture of a row.
        rows: Each with as many pictures as there are names.
        across: How many stand side by side; a row with more pictures goes on below.
    """
    cells = ''
    for row in rows:
        cells += f'<p>{escape(row.caption)}</p>' + ''.join(
            f'<figure><figcaption>{escape(name)}</figcaption><img src="{escape(uri)}" '
            f'alt="{escape(name)}: {escape(row.caption)}"></figure>'
            for name, uri in zip(columns, row.pictures, strict=True))
        cells += '<div></div>' * (-len(columns) % across)
    style = f'--n:{across};grid-template-columns:repeat({across},1fr)'
    return f'<div class="scroll"><div class="grid" style="{style}">{cells}</div></div>'


def keys(items: Sequence[tuple[str, str]]) -> str:
    """A legend: (colour, name) each."""
    return '<ul class="keys">' + ''.join(
        f'<li style="--color:{_variable(color)}"><i></i>{escape(name)}</li>' for color, name in items) + '</ul>'


def scales(items: Sequence[tuple[str, str, str]]) -> str:
    """A legend of ramps: (name, CSS background, largest value) each; the smallest is 0."""
    return '<ul class="keys">' + ''.join(
        f'<li><span>{escape(name)}&ensp;0</span><span class="ramp" style="background:{escape(background)}"></span>'
        f'<span>{escape(limit)}</span></li>' for name, background, limit in items) + '</ul>'


def sources(items: Sequence[tuple[str, str]]) -> str:
    """Lines of a name and a file each."""
    return ''.join(f'<br>{escape(name)}: <code>{escape(file)}</code>' for name, file in items)


def page(title: str, lead: str, summary: str, sections: Sequence[Section], footer: str) -> str:
    """The page: light or dark as the reader's system is; no script, no font, no request.

    Args:
        title: Heading of the page.
        lead: One or two sentences below it.
        summary: HTML right below them.
        sections: In their order.
        footer: HTML at the end.
    """
    links = ''.join(f'<a href="#{_anchor(each.kicker)}">{escape(each.kicker)}</a>' for each in sections)
    body = ''.join(
        f'<section id="{_anchor(each.kicker)}"><h2><small>{escape(each.kicker)}</small>{escape(each.title)}</h2>'
        f'<p class="note">{escape(each.note)}</p>{each.body}</section>' for each in sections)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<style>{theme_css()}{_CSS}</style></head><body><main><header><h1>{escape(title)}</h1>'
            f'<p>{escape(lead)}</p>{summary}<nav>{links}</nav></header>{body}<footer>{footer}</footer></main>'
            '</body></html>\n')


def _anchor(kicker: str) -> str:
    return ''.join(letter if letter.isalnum() else '-' for letter in kicker.lower())


def _variable(color: str) -> str:
    """One of the theme's colours by its variable; any other as it is; what is not a colour, as text is."""
    if not _COLOR.fullmatch(color):
        return 'currentColor'
    return f'var(--{color[1:]},{color})' if color.startswith('#') else color
