"""Reads signed system messages as a program that knows nothing of pecd does.

reading.py DIRECTORY: for each NAME.eml in it, what Python's email, html and xml
modules find there, as one JSON object by NAME. Beside a NAME.original, which is
the message that a brief receipt is about, it computes the hashes of that
message's parts itself. What these modules stumble over ends the program.
"""

import email
import email.policy
import hashlib
import html.parser
import json
import pathlib
import sys
import xml.etree.ElementTree

RAW = email.policy.compat32.clone(linesep="\r\n", max_line_length=None)


class Text(html.parser.HTMLParser):
    """Gathers the lines that a reader sees in the body, and all tags."""

    def __init__(self, markup):
        super().__init__()
        self.body, self.tags = "", []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag if not attributes else f"{tag} {attributes}")
        if tag == "body":
            self.body = ""

    def handle_data(self, data):
        self.body += data


def structure(part):
    if part.get_content_maintype() != "multipart":
        return part.get_content_type()
    return [part.get_content_type()] + [structure(p) for p in part.iter_parts()]


def elements(node, path=""):
    path += "/" + node.tag
    text = (node.text or "") if len(node) == 0 else ""
    yield [path, dict(node.attrib), text]
    for child in node:
        yield from elements(child, path)


def address(field):
    return [[a.display_name, a.addr_spec] for a in field.addresses]


def content(part):
    """The octets of a part as they are encoded."""
    if part.get_content_type() == "message/rfc822":
        return part.get_payload(0).as_bytes(policy=RAW)
    return part.get_payload().encode("ascii")


def leaves(part):
    """The parts that are no multiparts, without looking into messages."""
    if part.get_content_maintype() == "multipart" and part.is_multipart():
        for p in part.get_payload():
            yield from leaves(p)
    else:
        yield part


def brief(original, carried):
    """Pairs of what the hash of a part is to be and what stands in its place."""
    pairs = []
    for before, after in zip(leaves(original), leaves(carried), strict=True):
        name = before.get_filename() or before.get_param("name")
        if name or before.get_content_type() == "message/rfc822":
            got = after.get_payload(decode=True).decode("ascii")
            pairs.append([after.get_filename(), after.get_content_type(), hashlib.sha1(content(before)).hexdigest(), got])
        else:
            same = [p.as_bytes(policy=RAW).hex() for p in (before, after)]
            pairs.append(["", after.get_content_type(), *same])
    return pairs


def read(path):
    raw = path.read_bytes()
    m = email.message_from_bytes(raw, policy=email.policy.default)
    mixed = next(m.iter_parts())
    texts = next(mixed.iter_parts())
    plain, markup = list(texts.iter_parts())
    shown = Text(markup.get_content())
    found = {
        "fields": {k: str(v) for k, v in m.items() if k.lower().startswith("x-") or k in ("Subject", "Date")},
        "message_id": m["Message-ID"].strip(),
        "from": address(m["From"]),
        "structure": structure(m),
        "plain": plain.get_content(),
        "html": shown.body,
        "tags": sorted(set(shown.tags)),
        "charsets": [p.get_content_charset() for p in (plain, markup)],
        "files": [p.get_filename() for p in mixed.iter_attachments()],
        "defects": [repr(d) for p in (m, mixed, texts, plain, markup) for d in p.defects],
        "data": [],
        "original": "",
    }
    for part in list(mixed.iter_parts())[1:]:
        found["defects"] += [repr(d) for d in part.defects]
        if part.get_content_type() == "application/xml":
            found["data"] = list(elements(xml.etree.ElementTree.fromstring(part.get_content())))
        elif part.get_content_type() == "message/rfc822":
            found["original"] = part.get_payload(0)["Subject"] or ""
    original = path.with_suffix(".original")
    if original.exists():
        carried = email.message_from_bytes(raw, policy=RAW).get_payload(0).get_payload()[-1].get_payload(0)
        found["brief"] = brief(email.message_from_bytes(original.read_bytes(), policy=RAW), carried)
    return found


if __name__ == "__main__":
    everything = {p.stem: read(p) for p in sorted(pathlib.Path(sys.argv[1]).glob("*.eml"))}
    json.dump(everything, sys.stdout)
