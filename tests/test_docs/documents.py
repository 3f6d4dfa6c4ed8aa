"""What a markdown document asks its reader to write, to type and to expect."""
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r'^```(\w*)[ \t]*(.*?)[ \t]*\n(.*?)^```[ \t]*$', re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r'(?:(?<=\n\n)|\A)((?:(?: {4,}|\t).*\n|\n)+)')
INLINE = re.compile(r'`([^`\n]+(?:\n[^`\n]+)?)`')
PROGRAMS = ('python', 'bash', 'pip', 'torchrun', 'mmseg-kd')


@dataclass
class Command:
    """One line to type."""

    words: list[str]
    environment: dict[str, str]
    expected: list[str] = field(default_factory=list)  # lines of the text block that follows

    def __str__(self):
        return ' '.join([f'{key}={value}' for key, value in self.environment.items()] + self.words)


@dataclass
class File:
    """A block that the reader is to save."""

    name: str
    text: str


def commands_in(text: str) -> list[Command]:
    """Commands of a block: continued lines are joined, comments and other lines are left out."""
    found = []
    for line in text.replace('\\\n', ' ').splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # prose with an apostrophe
            continue
        environment = {}
        while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
            key, _, value = words.pop(0).partition('=')
            environment[key] = value
        if words and words[0] in PROGRAMS:
            found.append(Command(words, environment))
    return found


def steps(path: Path) -> list[Command | File]:
    """Files to save (```python NAME), commands to type (```bash) and what they print (```text), from top to bottom."""
    found = []
    for language, name, text in FENCE.findall(path.read_text()):
        if language == 'bash':
            found += commands_in(text)
        elif language == 'text' and found and isinstance(found[-1], Command):
            found[-1].expected += [line.strip() for line in text.splitlines() if line.strip()]
        elif name:
            found.append(File(name, text))
    return found


def all_commands(path: Path) -> list[Command]:
    """Every command of a document, in fenced, indented and inline code."""
    text = path.read_text()
    fenced = [body for language, _, body in FENCE.findall(text) if language in ('bash', 'shell', '')]
    text = FENCE.sub('', text)
    found = [command for block in fenced + INDENTED.findall(text) for command in commands_in(block)]
    for inline in INLINE.findall(text):
        found += [command for command in commands_in(' '.join(inline.split())) if len(command.words) > 1]
    return found


def shown(expected: str, printed: str) -> bool:
    """Whether a line is in the output; '...' stands for anything, and any white space for any other."""
    pattern = r'.*?'.join(r'\s+'.join(map(re.escape, part.split())) for part in expected.split('...'))
    return re.search(pattern, printed) is not None
