"""The description of an attribute; types and defaults come from the models."""

from typing import NamedTuple


class AttributeDoc(NamedTuple):
    """The description of one attribute.

    Attributes:
        default: only where a missing value has a meaning.
        example: YAML that is valid in a v3alpha1 Mapping, or in the only version that has the attribute.
        differs: how it differs from Emissary, empty if it does not.
    """

    meaning: str
    example: str
    default: str = ""
    differs: str = ""
