import sys
from pathlib import Path

# The list of the family and its oracles are shared with the tests of the functions.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_functional'))
