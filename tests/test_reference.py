"""The config reference says what the layer classes say."""
from pathlib import Path

from convnet.reference import reference


def test_the_stored_reference_is_up_to_date():
    """If not: python -m convnet.reference > docs/config.md."""
    assert (Path(__file__).parent.parent / "docs" / "config.md").read_text() == reference() + "\n"
