"""A process with torch and mmseg in it, which runs the scripts that the documents call."""
import pytest
from server import Server


@pytest.fixture(scope='package')
def python():
    server = Server()
    yield server
    server.stop()
