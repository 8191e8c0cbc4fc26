"""How anybody can tell what a picture of this provider is: the file itself says so, in XMP (ISO 16684-1)."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .imaging import Picture

SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/composite"
"""Of IPTC's Digital Source Types (its definition of 2024-09-17): "Mix or composite of several elements, any of which
may or may not be generative AI".

Not ``compositeCapture``, "several elements that are all captures of real life": nobody has looked whether the two
photos are, and catalogues hold renderings as well. Not ``compositeSynthetic``, "at least one of which is Generative
AI": this provider draws with no such model.
"""

PACKET: Final = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"
    xmp:CreatorTool="Sakura try-on"/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
"""No time and no name, so that the same photos give the same bytes, and nothing about the shopper. ``r``: as in every
PNG it must not be changed in place, for the sake of the chunk's checksum (XMP specification, part 3)."""


def png(rgb: Picture) -> bytes:
    """The picture as a PNG with the mark, quickly rather than small."""
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", PACKET)
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG", pnginfo=info, compress_level=1)
    return out.getvalue()
