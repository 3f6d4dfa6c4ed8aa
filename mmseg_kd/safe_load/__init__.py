"""Files of strangers, read as data."""
from .config import load_config_without_code, parse_config_without_code
from .download import download, download_path, file_sha256, sha256_in_name, verify_sha256
from .pickles import Refused
from .reading import load_without_code
from .state import Fit, compare, some, state_dict_of

__all__ = ['Fit', 'Refused', 'compare', 'download', 'download_path', 'file_sha256', 'load_config_without_code',
           'load_without_code', 'parse_config_without_code', 'sha256_in_name', 'some', 'state_dict_of', 'verify_sha256']
