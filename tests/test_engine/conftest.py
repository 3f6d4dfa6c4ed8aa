import pytest


@pytest.fixture(autouse=True)
def plain_config_text(monkeypatch):
    """A Runner formats its config several times, which takes seconds each; plain Python text says the same."""
    from mmengine.config import Config
    monkeypatch.setattr(Config, 'pretty_text', property(
        lambda config: '\n'.join(f'{key} = {value!r}' for key, value in config.to_dict().items())))
