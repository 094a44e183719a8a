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
  again     a mail that came again while only what is far from it was broken
  unlike    a mail that came again and is not the same
  after     a mail that came again when its delivery had long been certified
  field     a mail of which "field" has the value "value"
  entry     a kind of receipt in a register that is nowhere else
"""
import collections
import concurrent.futures
import copy
import ctypes
import ctypes.util
import email
import email.policy
import email.utils
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

    def certified(self, m):
        for part in m.walk():
            if part.get_filename() == "daticert.xml":
                return ET.fromstring(part.get_payload(decode=True))
        raise ValueError("%s: no daticert.xml" % self.path)

    def body(self):
        return self.raw.partition(b"\n\n")[2]

    def original(self):
        """postacert.eml, each octet as it is in the file; None: there is none."""
        return part(self.raw, "postacert.eml")


def part(entity, name):
    """The content of the part of that name, found by the boundaries around it."""
    header, _, body = entity.partition(b"\n\n")
    m = email.message_from_bytes(header + b"\n\n")
    if m.get_param("name") == name:
        return body
    boundary = m.get_boundary() if m.get_content_maintype() == "multipart" else None
    if not boundary:
        return None
    # The line end before a delimiter belongs to it; RFC 2046, 5.1.1.
    pieces = re.split(rb"\n--" + re.escape(boundary.encode()) + rb"(?:--)?[ \t]*(?=\n|\Z)", b"\n" + body)
    for piece in pieces[1:-1]:
        found = part(piece[1:], name)
        if found is not None:
            return found
    return None


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
        self.world = world
        self.lies = {lie["of"]: lie for lie in lies}
        self.violations, self.counts = [], collections.Counter()
        self.mails = []
        self.sendings = [dict(s, accepted=0, unknown=0) if self.told(s["msgid"]) == "refused" else s for s in world["sendings"]]
        self.known = {s["msgid"]: s for s in self.sendings}
        self.sent = {s["msgid"]: Sent(s["file"]) for s in self.sendings}

    def told(self, of):
        """Which lie the judge was told of something."""
        return self.lies.get(of, {}).get("what")

    def wrong(self, text):
        self.violations.append(text)

    def run(self):
        self.read()
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
        if what not in ("twice", "again", "unlike", "after"):
            return
        second = copy.copy(m)
        self.mails.append(second)
        if what == "twice":
            second.message_id = "<twice" + m.message_id[1:]
        elif what == "unlike":
            at = m.raw.rindex(b"\n--") - 1  # in the signature
            second.raw = m.raw[:at] + bytes([m.raw[at] ^ 1]) + m.raw[at + 1:]
        elif what == "after":
            second.time += 3600
        else:
            m.time = second.time = m.time + 3600
            near = self.world["providers"][m.address.partition("@")[2]]["label"]
            far = [("link cut", "link"), ("plugin killed", "pecd " + near), ("clamd killed", "clamd")]
            far += [("pecd killed", "pecd " + p["label"]) for p in self.world["providers"].values() if p["label"] != near]
            self.world["faults"] += [{"kind": k, "target": t, "begin": m.time, "end": m.time} for k, t in far]

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
        accepted, unknown = s["accepted"], s["unknown"]
        receipts = self.by["acceptance", s["msgid"]]
        self.counts["messages"] += 1
        self.counts["accepted"] += accepted
        if not accepted <= len(receipts) <= accepted + unknown:
            self.wrong("%s: heard 250 %d times, lost the reply %d times, has %d acceptance receipts: %s; heard: %s" %
                       (s["msgid"], accepted, unknown, len(receipts), ", ".join(
                           "%s at %s" % (r.identifier, time.strftime("%T", time.localtime(r.time))) for r in receipts),
                        "; ".join(s["heard"] or [])))
        if accepted + unknown == 0:
            return
        self.counts["accepted after a lost reply"] += len(receipts) - accepted
        for r in receipts:
            for to in s["to"]:
                self.recipient(s, r.identifier, to)

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
    LATE = 2

    def delivery(self, s, receipt, copies, where):
        """What a delivery receipt certifies has happened, and is not done again."""
        if not copies:
            self.wrong("%s: delivery certified, nothing in the mailbox" % where)
        for c in copies:
            for m in self.seen[c.address, c.message_id]:
                if m.time > receipt.time + self.LATE:
                    self.wrong("%s: delivered again after delivery was certified: %s" % (where, m.path))
        wish = self.sent[s["msgid"]].wish
        if receipt.wish != wish:
            self.wrong("%s: the receipt is %s, wanted was %s" % (where, receipt.wish, wish))
        # No message has an attachment, so a brief receipt holds all of it, too.
        if wish != "sintetica":
            self.content(s, receipt, where)
        elif receipt.original() is not None:
            self.wrong("%s: the original is in a synthetic receipt" % where)

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
        if s is None or s["accepted"] + s["unknown"] == 0:
            self.wrong("%s: about %s, which nobody had accepted" % (here, m.msgid))
            return
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

    # How long after a copy its reply may still have been lost: signing and committing
    # take their time on a loaded machine. What was broken until just before may have
    # left a connection behind that is not what it seems.
    AFTER, BEFORE = 10, 2

    def copies(self):
        """A second copy needs a fault that can have lost the reply to the one before it, and is the same."""
        for (address, message_id), mails in self.seen.items():
            for first, m in zip(mails, mails[1:]):
                self.counts["copies beyond the first"] += 1
                if m.body() != first.body():
                    self.wrong("%s: two copies of %s differ: %s and %s" % (address, message_id, first.path, m.path))
                near = [f for f in self.world["faults"] if f["begin"] <= first.time + self.AFTER and f["end"] >= first.time - self.BEFORE]
                if not any(self.loses(f, first) for f in near):
                    self.wrong("%s: a second copy of %s, %s, without a fault that can have lost the reply to the one before, of %s, only: %s" %
                               (address, message_id, m.path, time.strftime("%T", time.localtime(first.time)),
                                ", ".join("%s (%s)" % (f["kind"], f["target"]) for f in near) or "none"))

    def loses(self, fault, m):
        """Whether fault can have kept back the word that m is in its mailbox.

        Into a certified mailbox its own provider's pecd delivers, and recognises what it
        has committed, so that nothing counts but what comes between the mailbox store and
        the commit: a link or a sender's server can at most bring a message to it twice.
        Into an ordinary one the sender's provider sends.
        """
        if fault["kind"].startswith("plugin"):
            return False  # it is asked before
        own = self.world["providers"].get(m.address.partition("@")[2])
        if own:
            return fault["target"] in ["%s %s" % (what, own["label"]) for what in ("pecd", "Postfix", "Dovecot", "token")]
        sender = self.world["providers"].get(m.system.partition("@")[2], {"label": ""})
        return fault["target"] in ["%s %s" % (what, sender["label"]) for what in ("pecd", "Postfix")]

    def register(self):
        """Each receipt in a mailbox has one entry, and each entry of a receipt a receipt."""
        entries = collections.Counter()
        for path in self.world["registers"]:
            db = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
            last = 0
            for seq, kind, identifier, record in db.execute("SELECT seq, type, identifier, record FROM entry ORDER BY seq"):
                self.counts["register entries"] += 1
                if seq != last + 1:
                    self.wrong("%s: entry %d follows %d" % (path, seq, last))
                last = seq
                for message_id in json.loads(record).get("messages") or []:
                    entries[kind, identifier, message_id.strip("<>")] += 1
            db.close()
        for lie in self.lies.values():
            if lie["what"] == "entry":
                entries[lie["of"], "a lie", "a lie"] = 1
        issued = {(WIRE[m.kind], m.identifier, m.message_id.strip("<>")) for m in self.distinct.values() if m.kind}
        for key in issued:
            if entries[key] != 1:
                self.wrong("%s of %s is %d times in the registers as issued: %s" % (key[0], key[1], entries[key], key[2]))
        words = {word: kind for kind, word in WIRE.items()}
        for key in entries:
            kind = words.get(key[0])
            if kind is None:
                continue
            if kind not in POSSIBLE:
                self.wrong("the register has a %s of %s: nothing happened of which this could be said" % key[:2])
            if key not in issued and not (kind == "envelope" and self.for_nobody(key[1])):
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
