"""The judge of a chaos run. It shares no code with pecd and knows of it only what
RFC 6109 says about messages, and the table of the register. It reads world.json,
all mailboxes and the registers, and prints as JSON what it counted and every
violation that it found.

usage: oracle.py world.json [lies.json]

Lies let a test see that it notices. Each has "what", and "of", a file or what else
it is about:
  hide      a mail that is not there
  refused   a message, by its Message-ID, that its client was refused
  garbled   a mail that somebody has changed, for the signature
  changed   an original of which one octet of a header was changed
  twice     a mail that came again under another Message-ID
  again     a mail that came again while only what cannot have made it so was broken
  unlike    a mail that came again and is not the same
  after     an envelope that came again just after its delivery had been certified, and
            long before the receipt arrived
  lost      a message, by its Message-ID, whose client lost a reply while nothing was broken
  field     a mail of which "field" has the value "value"
  record    a mail whose entry in the register has the value "value" under "field"
  entry     a kind of receipt in a register that is nowhere else
"""
import collections
import concurrent.futures
import copy
import ctypes
import ctypes.util
import datetime
import email
import email.policy
import email.utils
import functools
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

RECEIPTS = {
    "accettazione": "acceptance", "presa-in-carico": "take-charge", "avvenuta-consegna": "delivery",
    "errore-consegna": "non-delivery", "preavviso-errore-consegna": "timeout", "rilevazione-virus": "virus",
    "non-accettazione": "non-acceptance",
}
# On the wire and in the register.
WIRE = dict({kind: word for word, kind in RECEIPTS.items()}, envelope="posta-certificata")

# What may be in this world: no message breaks a rule, none has a virus, and no run
# lasts twelve hours.
POSSIBLE = ("acceptance", "envelope", "take-charge", "delivery", "non-delivery")


class Mail:
    """One file of a mailbox."""

    def __init__(self, path, address):
        self.path, self.address = path, address
        self.time = os.stat(path).st_mtime
        with open(path, "rb") as f:
            self.raw = f.read()
        m = email.message_from_bytes(self.raw, policy=email.policy.compat32)
        self.message_id = (m["Message-ID"] or "").strip()
        self.system = email.utils.parseaddr(m["From"] or "")[1]
        transport = (m["X-Trasporto"] or "").strip()
        receipt = (m["X-Ricevuta"] or "").strip()
        self.kind = "envelope" if transport == "posta-certificata" else RECEIPTS.get(receipt, "")
        if not self.kind:
            return
        data = self.certified(m)

        def text(name):
            return (data.findtext(name) or "").strip()
        self.type, self.error = data.get("tipo"), data.get("errore")
        self.sender, self.subject = text("intestazione/mittente"), text("intestazione/oggetto")
        self.recipients = sorted([e.text.strip(), e.get("tipo")] for e in data.findall("intestazione/destinatari"))
        self.provider, self.identifier, self.msgid = text("dati/gestore-emittente"), text("dati/identificativo"), text("dati/msgid")
        self.rcpt = text("dati/consegna")
        self.taken = [e.text.strip() for e in data.findall("dati/ricezione")]
        wish = data.find("dati/ricevuta")
        self.wish = "" if wish is None else wish.get("tipo")
        instant = "%s %s %s" % (text("dati/data/giorno"), text("dati/data/ora"), data.find("dati/data").get("zona"))
        self.at = datetime.datetime.strptime(instant, "%d/%m/%Y %H:%M:%S %z").timestamp()  # the whole second

    def certified(self, m):
        for part in m.walk():
            if part.get_filename() == "daticert.xml":
                return ET.fromstring(part.get_payload(decode=True))
        raise ValueError("%s: no daticert.xml" % self.path)

    def body(self):
        return self.raw.partition(b"\n\n")[2]

    @functools.cached_property
    def digest(self):
        """SHA-256 of what was signed, with the line ends that it had on its way."""
        return hashlib.sha256(parts(self.raw)[0].replace(b"\n", b"\r\n")).hexdigest()

    def original(self):
        """postacert.eml, each octet as it is in the file; None: there is none."""
        return part(self.raw, "postacert.eml")


def part(entity, name):
    """The content of the part of that name, found by the boundaries around it."""
    header, _, body = entity.partition(b"\n\n")
    m = email.message_from_bytes(header + b"\n\n")
    if m.get_param("name") == name:
        return body
    for piece in parts(entity):
        found = part(piece, name)
        if found is not None:
            return found
    return None


def parts(entity):
    """The parts of a multipart entity, each octet as it is; of another there are none."""
    header, _, body = entity.partition(b"\n\n")
    m = email.message_from_bytes(header + b"\n\n")
    boundary = m.get_boundary() if m.get_content_maintype() == "multipart" else None
    if not boundary:
        return []
    # The line end before a delimiter belongs to it; RFC 2046, 5.1.1.
    pieces = re.split(rb"\n--" + re.escape(boundary.encode()) + rb"(?:--)?[ \t]*(?=\n|\Z)", b"\n" + body)
    return [piece[1:] for piece in pieces[1:-1]]


def set_aside(raw):
    """Message-ID and X-Riferimento-Message-ID of a message, and the rest of it."""
    header, _, body = raw.partition(b"\n\n")
    fields, rest = {}, []
    for field in re.split(rb"\n(?![ \t])", header):
        name, _, value = field.partition(b":")
        if name.lower() in (b"message-id", b"x-riferimento-message-id"):
            fields[name.lower().decode()] = value.strip().decode()
        else:
            rest.append(field)
    return fields, b"\n".join(rest) + b"\n\n" + body


def clock(t):
    return time.strftime("%T", time.localtime(t))


def named(faults):
    return ", ".join("%s (%s)" % (f["kind"], f["target"]) for f in faults) or "none"


class Sent:
    """What the file of a sending says."""

    def __init__(self, path):
        self.path = path
        m = email.message_from_bytes(self.raw().partition(b"\n\n")[0] + b"\n\n")
        self.subject, self.wish = m["Subject"], m["X-TipoRicevuta"] or "completa"

    def raw(self):
        """The message with the line ends that Dovecot gives it."""
        with open(self.path, "rb") as f:
            return f.read().replace(b"\r\n", b"\n")


class Judge:
    def __init__(self, world, lies):
        self.world = dict(world, faults=world["faults"] or [])  # in a soak there are none
        self.lies = {lie["of"]: lie for lie in lies}
        self.violations, self.counts = [], collections.Counter()
        self.mails = []
        self.spans = {}  # provider and whether the mailbox is certified -> what reaches it; excuses fills it
        self.sendings = [self.heard(s) for s in world["sendings"]]
        self.known = {s["msgid"]: s for s in self.sendings}
        self.sent = {s["msgid"]: Sent(s["file"]) for s in self.sendings}

    def told(self, of):
        """Which lie the judge was told of something."""
        return self.lies.get(of, {}).get("what")

    def heard(self, s):
        """A sending, with when its attempts began and ended: those that were accepted, and those
        whose reply was lost."""
        s = dict(s, accepted=s["accepted"] or [], unknown=s["unknown"] or [])
        if self.told(s["msgid"]) == "refused":
            s.update(accepted=[], unknown=[])
        elif self.told(s["msgid"]) == "lost":
            at = s["accepted"][0][0] + 7200
            s["unknown"] = s["unknown"] + [[at, at + 1]]
        return s

    def wrong(self, text):
        self.violations.append(text)

    def run(self):
        self.read()
        self.lie_about_certified()
        self.group()
        for s in self.sendings:
            self.sending(s)
        for m in self.distinct.values():
            if m.kind:
                self.statement(m)
        self.copies()
        self.register()
        self.signatures()
        self.counts["mails"] = len(self.mails)
        return {"violations": self.violations, "counts": dict(self.counts)}

    def read(self):
        for address, folder in self.world["boxes"].items():
            for sub in ("new", "cur"):
                d = os.path.join(folder, sub)
                for name in sorted(os.listdir(d)) if os.path.isdir(d) else []:
                    path = os.path.join(d, name)
                    if self.told(path) == "hide":
                        continue
                    m = Mail(path, address)
                    self.mails.append(m)
                    self.lie(m, self.told(path))

    def lie(self, m, what):
        """What a test tells about m that is not so."""
        if what == "field":
            setattr(m, self.lies[m.path]["field"], self.lies[m.path]["value"])
        if what not in ("twice", "again", "unlike"):
            return
        second = copy.copy(m)
        self.mails.append(second)
        if what == "twice":
            second.message_id = "<twice" + m.message_id[1:]
        elif what == "unlike":
            at = m.raw.rindex(b"\n--") - 1  # in the signature
            second.raw = m.raw[:at] + bytes([m.raw[at] ^ 1]) + m.raw[at + 1:]
        else:
            m.time = second.time = m.time + 3600
            near = self.label(m.address)
            no = [("link cut", "link"), ("clamd killed", "clamd"), ("Postfix killed", "Postfix " + near), ("Dovecot stopped", "Dovecot " + near)]
            no += [(kind, "pecd " + near) for kind in ("plugin killed", "clock jumps ahead", "pecd stopped", "pecd restarted")]
            no += [("pecd killed", "pecd " + p["label"]) for p in self.world["providers"].values() if p["label"] != near]
            self.world["faults"] += [{"kind": k, "target": t, "begin": m.time, "struck": m.time, "end": m.time} for k, t in no]

    def lie_about_certified(self):
        """The lies that need the receipt of an envelope."""
        receipts = {(m.identifier, m.rcpt): m for m in self.mails if m.kind == "delivery"}
        for m in [m for m in self.mails if self.told(m.path) == "after"]:
            receipt = receipts[m.identifier, m.address]
            second = copy.copy(m)
            certified = self.certified_by(receipt, [m.time])
            second.time = certified + self.LATE + 1
            if certified != receipt.time:
                receipt.time = second.time + 60
            self.mails.append(second)

    def label(self, address):
        """The label of an address's provider; empty: it is ordinary."""
        return self.world["providers"].get(address.partition("@")[2], {"label": ""})["label"]

    def group(self):
        """Distinct messages: copies of one share Message-ID and mailbox."""
        self.distinct, self.seen = {}, collections.defaultdict(list)
        for m in sorted(self.mails, key=lambda m: m.time):
            key = (m.address, m.message_id)
            self.seen[key].append(m)
            self.distinct.setdefault(key, m)
        self.by = collections.defaultdict(list)  # (kind, identifier or msgid) -> mails
        self.accepted = {}  # identifier -> the acceptance receipt of it
        for m in self.distinct.values():
            if m.kind == "acceptance":
                self.by["acceptance", m.msgid].append(m)
                if m.identifier in self.accepted:
                    self.wrong("%s has two acceptance receipts: %s and %s" % (m.identifier, self.accepted[m.identifier].path, m.path))
                self.accepted[m.identifier] = m
            elif m.kind:
                self.by[m.kind, m.identifier].append(m)
            else:
                self.wrong("%s: neither receipt nor envelope: %s" % (m.address, m.path))

    def sending(self, s):
        accepted, unknown = len(s["accepted"]), len(s["unknown"])
        receipts = self.by["acceptance", s["msgid"]]
        self.counts["messages"] += 1
        self.counts["accepted"] += accepted
        if not accepted <= len(receipts) <= accepted + unknown:
            self.wrong("%s: heard 250 %d times, lost the reply %d times, has %d acceptance receipts: %s; heard: %s" %
                       (s["msgid"], accepted, unknown, len(receipts), ", ".join(
                           "%s at %s" % (r.identifier, clock(r.time)) for r in receipts),
                        "; ".join(s["heard"] or [])))
        self.lost(s)
        if accepted + unknown == 0:
            return
        self.counts["accepted after a lost reply"] += len(receipts) - accepted
        for r in receipts:
            self.accepted_when(s, r)
            for to in s["to"]:
                self.recipient(s, r.identifier, to)

    # For how long after it was mended a fault may still lose a reply: a session lives on.
    LINGERS = 3

    def lost(self, s):
        """A reply is lost only where something is broken that can lose it: the sender's pecd, or his Postfix."""
        own = self.label(s["from"])
        for begin, end in s["unknown"]:
            self.counts["replies lost"] += 1
            near = [f for f in self.world["faults"] if f["begin"] <= end and f["end"] + self.LINGERS >= begin]
            # What a plugin or the clock stands in the way of is put off, in pecd's own words, and a
            # short stop is shorter than anybody's patience.
            if not any(f["target"] in ("pecd " + own, "Postfix " + own) and f["kind"] not in ("pecd stopped", "Postfix stopped")
                       and not f["kind"].startswith(("plugin", "clock")) for f in near):
                self.wrong("%s: the reply to the attempt from %s to %s was lost without a fault that can have lost it, only: %s; heard: %s" %
                           (s["msgid"], clock(begin), clock(end), named(near), "; ".join(s["heard"] or [])))

    # What is certified is the second in which something happened, and clients look at their
    # clocks before and after it.
    TOLERANCE = 2
    JUMP = 5 * 3600  # a clock jumps by five hours at most

    def accepted_when(self, s, r):
        """An acceptance falls into an attempt, by the clock of who issued it. pecd may go on with one
        whose client has lost it, as long as it is held up and then some."""
        spans = [(begin - self.TOLERANCE, end + self.TOLERANCE) for begin, end in s["accepted"]]
        for begin, end in s["unknown"]:
            ends = [f["end"] for f in self.world["faults"] if f["begin"] <= end <= f["end"] and self.label(s["from"]) in f["target"].split()]
            spans.append((begin - self.TOLERANCE, max([end] + ends) + 20))
        back, ahead = self.drift(r.system, min(a for a, _ in spans), max(b for _, b in spans))
        if any(a - back <= r.at <= b + ahead for a, b in spans):
            return
        self.wrong("%s: %s certifies that it was accepted at %s, outside of all attempts: %s" %
                   (s["msgid"], r.path, clock(r.at), ", ".join("%s to %s" % (clock(a), clock(b)) for a, b in spans)))

    def drift(self, system, begin, end):
        """By how much, back and ahead, the clock of a provider, known by its mailbox, can have been
        wrong at any time between."""
        target = "pecd " + self.label(system)
        kinds = [f["kind"] for f in self.world["faults"] if f["target"] == target and f["begin"] - 1 <= end and f["end"] + 1 >= begin]
        return self.JUMP * ("clock jumps back" in kinds), self.JUMP * ("clock jumps ahead" in kinds)

    def certified(self, to):
        return to in self.world["certified"] or to in self.world["nobody"]

    def recipient(self, s, identifier, to):
        where = "%s (%s) to %s" % (s["msgid"], identifier, to)
        copies = [m for m in self.by["envelope", identifier] if m.address == to]
        outcomes = [m for k in ("delivery", "non-delivery") for m in self.by[k, identifier] if m.rcpt == to]
        if to not in self.world["nobody"] and len(copies) != 1:
            self.wrong("%s: %s" % (where, "%d envelopes" % len(copies) if copies else "no copy in the mailbox"))
        for m in copies:
            self.content(s, m, where)
        if not self.certified(to):
            if outcomes:
                self.wrong("%s: a receipt about an ordinary recipient" % where)
            return
        self.counts["certified recipients"] += 1
        if len(outcomes) != 1:
            self.wrong("%s: %d final outcomes" % (where, len(outcomes)))
            return
        outcome = outcomes[0]
        self.counts[outcome.kind] += 1
        if outcome.kind == "delivery":
            self.delivery(s, outcome, copies, where)
        elif copies:
            self.wrong("%s: non-delivery certified, a copy in the mailbox" % where)
        charges = [m for m in self.by["take-charge", identifier] if to in m.taken]
        if len(charges) != 1:
            self.wrong("%s: %d take-charge receipts" % (where, len(charges)))

    # A session with the mailbox store that pecd has given up may store its copy late.
    LATE = 3

    def delivery(self, s, receipt, copies, where):
        """What a delivery receipt certifies has happened, and is not done again."""
        if not copies:
            self.wrong("%s: delivery certified, nothing in the mailbox" % where)
        for c in copies:
            stored = [m.time for m in self.seen[c.address, c.message_id]]
            certified = self.certified_by(receipt, stored)
            self.counts["deliveries held against the instant of their certification"] += certified == receipt.at + 1
            for m in self.seen[c.address, c.message_id]:
                if m.time > certified + self.LATE:
                    self.wrong("%s: delivered again, at %s, after delivery was certified, at %s: %s" % (where, clock(m.time), clock(certified), m.path))
        wish = self.sent[s["msgid"]].wish
        if receipt.wish != wish:
            self.wrong("%s: the receipt is %s, wanted was %s" % (where, receipt.wish, wish))
        # No message has an attachment, so a brief receipt holds all of it, too.
        if wish != "sintetica":
            self.content(s, receipt, where)
        elif receipt.original() is not None:
            self.wrong("%s: the original is in a synthetic receipt" % where)

    def certified_by(self, receipt, stored):
        """By when a delivery was certified, of which copies were stored at those times. Where the
        clock had jumped, by an hour at least, the receipt's arrival must do. That it had, statement sees to."""
        if min(stored) - self.TOLERANCE <= receipt.at <= receipt.time + self.TOLERANCE:
            return receipt.at + 1  # the second is over
        return receipt.time

    def content(self, s, m, where):
        """postacert.eml is what was sent, but for the two fields that the rules change; RFC 6109, 2.2.1."""
        original = m.original()
        if original is None:
            self.wrong("%s: no postacert.eml: %s" % (where, m.path))
            return
        if self.told(m.path) == "changed":
            original = original.replace(b"\nSubject: c", b"\nSubject: C", 1)
        sent, want = set_aside(self.sent[s["msgid"]].raw())
        fields, got = set_aside(original)
        if got != want:
            at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
            self.wrong("%s: %s is not what was sent: at octet %d %r was sent and %r is there: %s" %
                       (where, "the envelope's original" if m.kind == "envelope" else "the receipt's original",
                        at, want[at:at + 40], got[at:at + 40], m.path))
        expected = {"message-id": "<%s>" % m.identifier, "x-riferimento-message-id": sent["message-id"]}
        if fields != expected:
            self.wrong("%s: the original in %s has %s" % (where, m.path, fields))
        self.counts["originals compared"] += 1

    def statement(self, m):
        """What m says is so of a message that was sent, he says it whose matter it is, and it
        is in the mailbox for which it was made."""
        here = "%s: %s of %s (%s)" % (m.address, m.kind, m.identifier, m.path)
        if m.kind not in POSSIBLE:
            self.wrong("%s: nothing happened of which this could be said" % here)
        s = self.known.get(m.msgid)
        if s is None or not s["accepted"] + s["unknown"]:
            self.wrong("%s: about %s, which nobody had accepted" % (here, m.msgid))
            return
        begin = min(a for a, _ in s["accepted"] + s["unknown"])
        if not begin - self.TOLERANCE <= m.at <= m.time + self.TOLERANCE:
            back, ahead = self.drift(m.system, begin, m.time)
            if begin - back - self.TOLERANCE <= m.at <= m.time + ahead + self.TOLERANCE:
                self.counts["certified while the clock had jumped"] += 1
            else:
                self.wrong("%s: certifies the instant %s, and it can only have been from %s to %s" % (here, clock(m.at), clock(begin - back), clock(m.time + ahead)))
        if m.identifier not in self.accepted:
            self.wrong("%s: there is no acceptance receipt" % here)
        elif self.accepted[m.identifier].msgid != m.msgid:
            self.wrong("%s: is about %s, and %s was accepted" % (here, m.msgid, self.accepted[m.identifier].msgid))
        providers, domain = self.world["providers"], s["from"].partition("@")[2]
        about = {"delivery": [m.rcpt], "non-delivery": [m.rcpt], "take-charge": m.taken or [""]}.get(m.kind, [])
        for to in about:
            if to not in s["to"]:
                self.wrong("%s: is about %s, to whom nobody wrote" % (here, to or "nobody"))
        if m.kind == "envelope":
            boxes = s["to"]
        else:
            boxes = [providers[domain]["service"] if m.kind == "take-charge" else s["from"]]
        if m.address not in boxes:
            self.wrong("%s: is for %s, and not for him" % (here, ", ".join(boxes)))
        issuers = {to.partition("@")[2] for to in about} or {domain}
        if [m.system] != [providers.get(d, {}).get("system") for d in issuers]:
            self.wrong("%s: is of %s, and a matter of %s" % (here, m.system, ", ".join(sorted(issuers))))
        elif m.provider not in [providers[d]["name"] for d in issuers]:
            self.wrong("%s: issued by %r" % (here, m.provider))
        for name, said, so in (
                ("tipo", m.type, WIRE[m.kind]), ("mittente", m.sender, s["from"]),
                ("errore", m.error, "no-dest" if m.kind == "non-delivery" else "nessuno"),
                ("oggetto", m.subject, self.sent[m.msgid].subject),
                ("destinatari", m.recipients, sorted([to, "certificato" if self.certified(to) else "esterno"] for to in s["to"]))):
            if said != so:
                self.wrong("%s: %s is %s, and not %s" % (here, name, said, so))

    # What can keep back the word that a mail is in a mailbox, by what it happens to. Into a
    # certified mailbox its own provider's pecd delivers, and recognises what it has committed: so
    # nothing counts but what comes between the mailbox store and the commit. A link, a sender's
    # server, or an MTA that hangs up while pecd delivers can at most bring a message to it twice;
    # a pecd that is stopped, or ends in peace, goes on with what it has begun; a Dovecot that is
    # stopped answers later, unless that is longer than a pecd that is to end waits for it. Before
    # its certificate began, nobody signs.
    LOSES = {
        "pecd": ("pecd killed", "disk full", "writes cut off", "fsync fails", "write fails", "clock jumps back"),
        "Dovecot": ("Dovecot killed", "Dovecot stopped for long"),
        "token": ("token away",),
    }
    # Into an ordinary one the sender's pecd brings it by his Postfix, and each has a reply to lose.
    LOSES_OUTSIDE = {
        "pecd": LOSES["pecd"] + ("pecd restarted", "pecd stopped for long"),
        "Postfix": ("Postfix killed", "Postfix stopped for long"),
    }
    # How long after a copy its reply may still have been lost: signing and committing take their
    # time on a loaded machine. A kill is over when it has struck, other faults are when they are
    # mended, and what was under way then takes its time too: two seconds, and eight where a queue
    # and another server lie between.
    AFTER, BEFORE, BEFORE_OUTSIDE = 6, 2, 8

    def copies(self):
        """A second copy needs a fault that can have lost the reply to the one before it, and is the same."""
        for (address, message_id), mails in self.seen.items():
            self.counts["first copies"] += 1
            self.counts["first copies of which a second would have been excused, too"] += bool(self.excuses(mails[0]))
            for first, m in zip(mails, mails[1:]):
                self.counts["copies beyond the first"] += 1
                if m.body() != first.body():
                    self.wrong("%s: two copies of %s differ: %s and %s" % (address, message_id, first.path, m.path))
                kinds = self.excuses(first)
                for kind in kinds:
                    self.counts["copies beyond the first near: " + kind] += 1
                if not kinds:
                    near = [f for f in self.world["faults"] if f["begin"] - self.AFTER <= first.time <= f["end"] + self.BEFORE]
                    self.wrong("%s: a second copy of %s, %s, without a fault that can have lost the reply to the one before, of %s, only: %s" %
                               (address, message_id, m.path, clock(first.time), named(near)))

    def excuses(self, m):
        """The kinds of those faults that can have kept back the word that m is in its mailbox."""
        own = self.label(m.address)
        label = own or self.label(m.system)
        key = (label, bool(own))
        if key not in self.spans:
            self.spans[key] = self.reaches(label, self.LOSES, self.BEFORE, ("pecd", "Dovecot")) if own else \
                self.reaches(label, self.LOSES_OUTSIDE, self.BEFORE_OUTSIDE, ("pecd", "Postfix"))
        return {kind for kind, begin, end in self.spans[key] if begin <= m.time <= end}

    def reaches(self, label, loses, before, servers):
        """Kind, begin and end of all that can lose a reply of a provider's servers. What is stopped
        meanwhile holds up what was under way: a stop that a fault meets carries it to the stop's other end."""
        of = {what: [f for f in self.world["faults"] if f["target"] == what + " " + label] for what in set(loses) | set(servers)}
        stops = [f for what in servers for f in of[what] if "stopped" in f["kind"]]
        spans = []
        for what, kinds in loses.items():
            for f in of[what]:
                if f["kind"] not in kinds:
                    continue
                begin, end = f["begin"] - self.AFTER, (f["struck"] if f["kind"].endswith("killed") else f["end"]) + before
                met = [stop for stop in stops if stop["begin"] <= end and stop["end"] >= begin]
                spans.append((f["kind"], min([begin] + [stop["begin"] - self.AFTER for stop in met]),
                              max([end] + [stop["end"] + before for stop in met])))
        return spans

    def register(self):
        """Each receipt in a mailbox has one entry, which says the same, and each entry of a receipt a receipt."""
        entries = collections.defaultdict(list)  # type, identifier, Message-ID -> records
        for path in self.world["registers"]:
            for kind, identifier, record in self.rows(path):
                for message_id in record.get("messages") or []:
                    entries[kind, identifier, message_id].append(record)
        for lie in self.lies.values():
            if lie["what"] == "entry":
                entries[lie["of"], "a lie", "a lie"] = [{}]
        issued = {(WIRE[m.kind], m.identifier, m.message_id.strip("<>")): m for m in self.distinct.values() if m.kind}
        for key, m in issued.items():
            if len(entries[key]) != 1:
                self.wrong("%s of %s is %d times in the registers as issued: %s" % (key[0], key[1], len(entries[key]), key[2]))
            for record in entries[key]:
                self.record(m, record)
            if m.kind != "envelope":
                self.arrival(m, entries)
        for key in set(entries) - set(issued):
            self.unissued(key)

    ARRIVALS = ("ricezione", "recapito")  # of a receipt: at the provider, in a mailbox

    def rows(self, path):
        """Type, identifier and record of all entries of a register, in their order."""
        told = {m.message_id.strip("<>"): self.lies[m.path] for m in self.mails if self.told(m.path) == "record"}
        db = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
        last = 0
        for seq, kind, identifier, text in db.execute("SELECT seq, type, identifier, record FROM entry ORDER BY seq"):
            self.counts["register entries"] += 1
            if seq != last + 1:
                self.wrong("%s: entry %d follows %d" % (path, seq, last))
            last = seq
            record = json.loads(text)
            messages = record.get("messages") or []
            lie = told.get(messages[0]) if messages else None
            if lie and kind not in self.ARRIVALS:
                record[lie["field"]] = lie["value"]
            if kind in WIRE.values() and len(record.get("messages") or []) != 1:
                self.wrong("%s: entry %d, %s of %s, names %d messages" % (path, seq, kind, identifier, len(record.get("messages") or [])))
            yield kind, identifier, record
        db.close()

    def record(self, m, record):
        """What the register says of m is what m says."""
        said = dict(record, recipients=sorted([r["address"], r.get("type")] for r in record["recipients"]),
                    at=datetime.datetime.fromisoformat(record["at"]).timestamp(), error=record.get("error", ""),
                    recipient=record.get("recipient", ""), taken=record.get("taken") or [])
        self.counts["register records compared"] += 1
        for name, so in (("type", m.type), ("identifier", m.identifier), ("msgid", m.msgid), ("sender", m.sender), ("subject", m.subject),
                         ("recipients", m.recipients), ("recipient", m.rcpt), ("taken", m.taken), ("error", m.error), ("at", m.at),
                         ("digest", m.digest)):
            if said.get(name) != so:
                self.wrong("the register says of %s that %s is %s, and it says %s" % (m.path, name, said.get(name), so))

    def arrival(self, m, entries):
        """A receipt arrived once at the provider of its mailbox, and once in that."""
        for kind in self.ARRIVALS:
            records = entries[kind, m.identifier, m.message_id.strip("<>")]
            if len(records) != 1:
                self.wrong("%s is %d times in the registers as %s" % (m.path, len(records), kind))
            for record in records:
                self.counts["register records compared"] += 1
                for name, so in (("msgid", m.msgid), ("sender", m.sender), ("subject", m.subject), ("digest", m.digest),
                                 ("recipient", m.address if kind == "recapito" else m.rcpt)):
                    if record.get(name, "") != so:
                        self.wrong("the register says of the arrival of %s that %s is %s, and it is %s" % (m.path, name, record.get(name), so))

    def unissued(self, key):
        """An entry of what is in no mailbox."""
        kind = {word: kind for kind, word in WIRE.items()}.get(key[0])
        if kind is None:
            return
        if kind not in POSSIBLE:
            self.wrong("the register has a %s of %s: nothing happened of which this could be said" % key[:2])
        if not (kind == "envelope" and self.for_nobody(key[1])):
            self.wrong("the register has a %s of %s that nobody got: %s" % key)

    def for_nobody(self, identifier):
        """Whether a message was for none but those who do not exist: they get no envelope."""
        r = self.accepted.get(identifier)
        s = self.known.get(r.msgid) if r else None
        return s is not None and all(to in self.world["nobody"] for to in s["to"])

    def signatures(self):
        """OpenSSL's library verifies each, and its program one of each kind."""
        certified = [m for m in self.mails if m.kind]
        verifier = Verifier(self.world["ca"])

        def check(m):
            raw = m.raw
            if self.told(m.path) == "garbled":
                raw = raw.replace(b"multipart/mixed", b"multipart/Mixed", 1)  # the first line of what is signed
            return verifier.signers(raw)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for m, (bad, signers) in zip(certified, pool.map(check, certified)):
                self.counts["signatures verified by OpenSSL"] += not bad
                if bad:
                    self.wrong("%s: OpenSSL: %s" % (m.path, bad))
                elif signers != [m.system]:
                    self.wrong("%s: says that it is of %s, and was signed by %s" % (m.path, m.system, ", ".join(signers) or "nobody"))
        for m in {m.kind: m for m in certified}.values():
            p = subprocess.run(["openssl", "cms", "-verify", "-in", m.path, "-CAfile", self.world["ca"], "-purpose", "any",
                                "-out", os.devnull], capture_output=True, text=True)
            if p.returncode:
                self.wrong("%s: OpenSSL: %s" % (m.path, p.stderr.strip().replace("\n", "; ")))


class Verifier:
    """What openssl cms -verify -purpose any -CAfile does, without a process for each message."""

    PURPOSE_ANY = 7

    def __init__(self, ca):
        name = ctypes.util.find_library("crypto")
        if name is None:
            raise SystemExit("no libcrypto: install OpenSSL")
        self.lib = ctypes.CDLL(name)
        p, i = ctypes.c_void_p, ctypes.c_int
        for name, result, arguments in (
                ("X509_STORE_new", p, ()), ("X509_STORE_load_locations", i, (p, ctypes.c_char_p, ctypes.c_char_p)),
                ("X509_STORE_set_purpose", i, (p, i)), ("BIO_new_mem_buf", p, (ctypes.c_char_p, i)), ("BIO_free", i, (p,)),
                ("SMIME_read_CMS", p, (p, ctypes.POINTER(p))), ("CMS_verify", i, (p, p, p, p, p, ctypes.c_uint)),
                ("CMS_get0_signers", p, (p,)), ("X509_get1_email", p, (p,)), ("X509_email_free", None, (p,)),
                ("OPENSSL_sk_num", i, (p,)), ("OPENSSL_sk_value", p, (p, i)), ("OPENSSL_sk_free", None, (p,)),
                ("CMS_ContentInfo_free", None, (p,)), ("ERR_get_error", ctypes.c_ulong, ()), ("ERR_clear_error", None, ()),
                ("ERR_error_string_n", None, (ctypes.c_ulong, ctypes.c_char_p, ctypes.c_size_t))):
            f = getattr(self.lib, name)
            f.restype, f.argtypes = result, arguments
        self.store = self.lib.X509_STORE_new()
        if self.lib.X509_STORE_load_locations(self.store, os.fsencode(ca), None) != 1 or \
                self.lib.X509_STORE_set_purpose(self.store, self.PURPOSE_ANY) != 1:
            raise SystemExit("%s: %s" % (ca, self.said()))

    def said(self):
        """OpenSSL's errors of this thread, the oldest first."""
        texts, text = [], ctypes.create_string_buffer(256)
        while code := self.lib.ERR_get_error():
            self.lib.ERR_error_string_n(code, text, len(text))
            texts.append(text.value.decode())
        return "; ".join(texts)

    def signers(self, raw):
        """What is wrong with a signed message (empty: nothing), and the addresses of its signers' certificates."""
        lib, content, cms = self.lib, ctypes.c_void_p(), None
        lib.ERR_clear_error()
        message = lib.BIO_new_mem_buf(raw, len(raw))
        try:
            cms = lib.SMIME_read_CMS(message, ctypes.byref(content))
            if cms and lib.CMS_verify(cms, None, self.store, content, None, 0) == 1:
                return "", self.addresses(lib.CMS_get0_signers(cms))
            return self.said() or "no reason given", []
        finally:
            lib.CMS_ContentInfo_free(cms)
            lib.BIO_free(content)
            lib.BIO_free(message)

    def addresses(self, certificates):
        """The addresses in a stack of certificates, which is freed."""
        lib, found = self.lib, []
        for i in range(lib.OPENSSL_sk_num(certificates)):
            emails = lib.X509_get1_email(lib.OPENSSL_sk_value(certificates, i))
            found += [ctypes.string_at(lib.OPENSSL_sk_value(emails, k)).decode() for k in range(lib.OPENSSL_sk_num(emails))]
            lib.X509_email_free(emails)
        lib.OPENSSL_sk_free(certificates)
        return found


def main(argv):
    read = []
    for name in argv[1:]:
        with open(name) as f:
            read.append(json.load(f))
    json.dump(Judge(read[0], read[1] if len(read) > 1 else []).run(), sys.stdout, indent=1)


main(sys.argv)
