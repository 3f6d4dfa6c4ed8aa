"""What a file is, in words, for the one who took it for a checkpoint."""
import os
import string
import zipfile

__all__ = ['LEGACY_START', 'describe_file']

#: The first pickle of a checkpoint from before torch 1.6: a number.
LEGACY_START = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'

_BEGINNINGS = [
    (b'\x1f\x8b', 'a gzip archive; unpack it'), (b'BZh', 'a bzip2 archive; unpack it'),
    (b'\xfd7zXZ', 'an xz archive; unpack it'), (b'7z\xbc\xaf', 'a 7z archive; unpack it'),
    (b'Rar!', 'a rar archive; unpack it'), (b'\x89PNG', 'a PNG picture'), (b'\xff\xd8\xff', 'a JPEG picture'),
    (b'GIF8', 'a GIF picture'), (b'%PDF', 'a PDF document'), (b'\x89HDF', 'an HDF5 file (of Keras?)'),
    (b'\x93NUMPY', 'a NumPy array (.npy)'), (b'\x7fELF', 'a program or library'), (b'MZ', 'a program for Windows'),
    (b'GGUF', 'a GGUF file of llama.cpp'), (b'SQLite', 'a database')]


def describe_file(path: str) -> str:
    """One clause on what a file is, by its content: ``'a web page ("404 Not Found")'``."""
    size = os.path.getsize(path)
    if not size:
        return 'an empty file (0 bytes; a download that failed, or a disk that was full)'
    with open(path, 'rb') as file:
        start = file.read(4096)
    text = start.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith(b'version https://git-lfs'):
        return ('a Git LFS pointer, which stands for the file in a repository; fetch the file itself: git lfs pull, or '
                'the download link of the website')
    if text.startswith((b'<!doctype html', b'<html', b'<head', b'<body')):
        return f'a web page{_quoted(_title(start))}, not what the link was to give; download the file itself'
    if text.startswith(b'<'):
        return f'an XML document{_quoted(_first_line(start))}, perhaps the error of a server'
    if not start.strip(b'\0') and _only_zeros(path):
        return f'{size} zero bytes (a disk that was full, or an interrupted copy)'
    if start.startswith(b'PK'):
        return _describe_zip(path)
    if len(start) > 262 and start[257:262] == b'ustar':
        return 'a tar archive; unpack it'
    for beginning, words in _BEGINNINGS:
        if start.startswith(beginning):
            return words
    if start.startswith(LEGACY_START):
        return 'a checkpoint'
    if start[:1] == b'\x80' and start[1:2] in b'\x01\x02\x03\x04\x05':
        return 'a pickle'
    if _is_text(start):
        kind = 'JSON' if text[:1] in (b'{', b'[') else 'text'
        return f'{kind}{_quoted(_first_line(start))}'
    return f'{size} bytes of an unknown format'


def _describe_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # whatever it meets: the archive cannot be opened
        return 'a zip archive without its end: the beginning of a checkpoint, cut off (copy or download it again)'
    if any(name.endswith('constants.pkl') for name in names):
        return 'a TorchScript archive (torch.jit.save), a program and not a checkpoint'
    if any(name.endswith(('serialized_exported_program.json', 'models/model.json')) for name in names):
        return 'an archive of torch.export, a program and not a checkpoint'
    if any(name.endswith('data.pkl') for name in names):
        return 'a checkpoint'
    if names and all(name.endswith('.npy') for name in names):
        return 'a NumPy archive (.npz)'
    return f'a zip archive of {len(names)} other files; unpack it'


def _only_zeros(path: str) -> bool:
    with open(path, 'rb') as file:
        return not any(piece.strip(b'\0') for piece in iter(lambda: file.read(1 << 20), b''))


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode('utf-8')
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return False
        text = start[:error.start].decode('utf-8')
    return all(letter in string.whitespace or letter.isprintable() for letter in text)


def _first_line(start: bytes) -> str:
    return next(iter(start.decode('utf-8', 'replace').strip().splitlines()), '')


def _title(start: bytes) -> str:
    text = start.decode('utf-8', 'replace')
    begin = text.lower().find('<title')
    if begin < 0:
        return ''
    begin = text.find('>', begin) + 1
    return ' '.join(text[begin:max(text.lower().find('</title', begin), begin)].split())


def _quoted(words: str) -> str:
    return f' ({words[:60]!r})' if words else ''
