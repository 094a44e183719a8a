"""The judge of a chaos run. It shares no code with pecd and knows of it only what
RFC 6109 says about messages, and the table of the register. It reads world.json,
all mailboxes and the registers, and prints as JSON what it counted and every
violation that it found.

usage: oracle.py world.json [--hide FILE] [--refused MSGID] [--garbled FILE]

The last three tell it lies, so that a test can see that it notices: a mail that is
not there, a message that its client was refused, a mail that somebody has changed.
"""
import collections
import concurrent.futures
import ctypes
import ctypes.util
import email
import email.policy
import json
import os
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


class Mail:
    """One file of a mailbox."""

    def __init__(self, path, address):
        self.path, self.address = path, address
        self.time = os.stat(path).st_mtime
        with open(path, "rb") as f:
            self.raw = f.read().replace(b"\r\n", b"\n")
        m = email.message_from_bytes(self.raw, policy=email.policy.compat32)
        self.message_id = (m["Message-ID"] or "").strip()
        self.transport = (m["X-Trasporto"] or "").strip()
        self.receipt = (m["X-Ricevuta"] or "").strip()
        self.kind = "envelope" if self.transport == "posta-certificata" else RECEIPTS.get(self.receipt, "")
        self.identifier = self.msgid = self.rcpt = self.sender = ""
        self.taken = []
        if not self.kind:
            return
        data = self.certified(m)
        self.identifier = (data.findtext("dati/identificativo") or "").strip()
        self.msgid = (data.findtext("dati/msgid") or "").strip()
        self.rcpt = (data.findtext("dati/consegna") or "").strip()
        self.taken = [e.text.strip() for e in data.findall("dati/ricezione")]
        self.sender = (data.findtext("intestazione/mittente") or "").strip()

    def certified(self, m):
        for part in m.walk():
            if part.get_filename() == "daticert.xml":
                return ET.fromstring(part.get_payload(decode=True))
        raise ValueError("%s: no daticert.xml" % self.path)


class Judge:
    def __init__(self, world, lies):
        self.world, self.lies = world, lies
        self.violations, self.counts = [], collections.Counter()
        self.mails = []

    def wrong(self, text):
        self.violations.append(text)

    def run(self):
        self.read()
        self.group()
        for s in self.world["sendings"]:
            self.sending(s)
        self.uninvited()
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
                    if path == self.lies.get("hide"):
                        continue
                    self.mails.append(Mail(path, address))

    def group(self):
        """Distinct messages: copies of one share Message-ID and mailbox."""
        self.distinct, self.seen = {}, collections.defaultdict(list)
        for m in self.mails:
            key = (m.address, m.message_id)
            self.seen[key].append(m)
            self.distinct.setdefault(key, m)
        self.by = collections.defaultdict(list)  # (kind, identifier or msgid) -> mails
        for m in self.distinct.values():
            if m.kind == "acceptance":
                self.by["acceptance", m.msgid].append(m)
            elif m.kind:
                self.by[m.kind, m.identifier].append(m)
            else:
                self.wrong("%s: neither receipt nor envelope: %s" % (m.address, m.path))

    def sending(self, s):
        if s["msgid"] == self.lies.get("refused"):
            s = dict(s, accepted=0, unknown=0)
        accepted, unknown = s["accepted"], s["unknown"]
        receipts = [m for m in self.by["acceptance", s["msgid"]] if m.address == s["from"]]
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
            if r.sender != s["from"]:
                self.wrong("%s: accepted from %s" % (s["msgid"], r.sender))
            for to in s["to"]:
                self.recipient(s, r.identifier, to)

    def recipient(self, s, identifier, to):
        where = "%s (%s) to %s" % (s["msgid"], identifier, to)
        certified = to in self.world["certified"] or to in self.world["nobody"]
        copies = [m for m in self.by["envelope", identifier] if m.address == to]
        exists = to not in self.world["nobody"]
        outcomes = [m for k in ("delivery", "non-delivery") for m in self.by[k, identifier]
                    if m.rcpt.lower() == to and m.address == s["from"]]
        if exists and not copies:
            self.wrong("%s: no copy in the mailbox" % where)
        for m in copies:
            self.content(s, m, where)
        if not certified:
            if outcomes:
                self.wrong("%s: a receipt about an ordinary recipient" % where)
            return
        self.counts["certified recipients"] += 1
        if len(outcomes) != 1:
            self.wrong("%s: %d final outcomes" % (where, len(outcomes)))
            return
        self.counts[outcomes[0].kind] += 1
        if outcomes[0].kind == "delivery" and not copies:
            self.wrong("%s: delivery certified, nothing in the mailbox" % where)
        if outcomes[0].kind == "non-delivery" and copies:
            self.wrong("%s: non-delivery certified, a copy in the mailbox" % where)
        charges = [m for m in self.by["take-charge", identifier] if to in [t.lower() for t in m.taken]]
        if len(charges) != 1:
            self.wrong("%s: %d take-charge receipts" % (where, len(charges)))

    def content(self, s, m, where):
        with open(s["file"], "rb") as f:
            body = f.read().replace(b"\r\n", b"\n").split(b"\n\n", 1)[1]
        if body not in m.raw:
            self.wrong("%s: the envelope does not hold what was sent" % where)

    def uninvited(self):
        """Nothing may be certified of what nobody sent."""
        known = {s["msgid"]: s for s in self.world["sendings"]}
        if self.lies.get("refused") in known:
            known[self.lies["refused"]] = dict(known[self.lies["refused"]], accepted=0, unknown=0)
        identifiers = {m.identifier for (k, _), l in list(self.by.items()) if k == "acceptance" for m in l}
        for m in self.distinct.values():
            s = known.get(m.msgid)
            if not m.kind:
                continue
            if s is None or s["accepted"] + s["unknown"] == 0:
                self.wrong("%s: %s about %s, which nobody had accepted" % (m.address, m.kind, m.msgid))
            if m.identifier not in identifiers:
                self.wrong("%s: %s of %s, of which there is no acceptance receipt" % (m.address, m.kind, m.identifier))
            if m.kind == "envelope" and s is not None and m.address not in s["to"]:
                self.wrong("%s has an envelope that was not for him: %s" % (m.address, m.path))

    def copies(self):
        """A second copy needs a fault between the first and itself that may have lost a reply."""
        for (address, message_id), mails in self.seen.items():
            mails = sorted(mails, key=lambda m: m.time)
            for first, m in zip(mails, mails[1:]):
                self.counts["copies beyond the first"] += 1
                kinds = sorted({f["kind"] for f in self.world["faults"]
                                if f["begin"] - 2 <= m.time and f["end"] + 2 >= first.time - 60})
                if not kinds:
                    self.wrong("%s: a second copy of %s without any fault near it" % (address, message_id))

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
        wire = {v: k for k, v in RECEIPTS.items()}
        wire["envelope"] = "posta-certificata"
        issued = collections.Counter()
        for m in self.distinct.values():
            if m.kind:
                issued[wire[m.kind], m.identifier, m.message_id.strip("<>")] = 1
        for key in issued:
            if entries[key] != 1:
                self.wrong("%s of %s is %d times in the registers as issued: %s" % (key[0], key[1], entries[key], key[2]))
        lost = [k for k in entries if k[0] in ("accettazione", "avvenuta-consegna", "errore-consegna") and not issued[k]]
        for key in lost:
            self.wrong("the register has a %s of %s that nobody got: %s" % key)

    def signatures(self):
        """OpenSSL's library verifies each, and its program one of each kind."""
        certified = [m for m in self.distinct.values() if m.kind]
        verifier = Verifier(self.world["ca"])

        def check(m):
            raw = m.raw
            if m.path == self.lies.get("garbled"):
                raw = raw.replace(b"multipart/mixed", b"multipart/Mixed", 1)  # the first line of what is signed
            return verifier.wrong(raw)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for m, bad in zip(certified, pool.map(check, certified)):
                self.counts["signatures verified by OpenSSL"] += not bad
                if bad:
                    self.wrong("%s: OpenSSL: %s" % (m.path, bad))
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

    def wrong(self, raw):
        """What is wrong with a signed message; empty: nothing."""
        lib, content, cms = self.lib, ctypes.c_void_p(), None
        lib.ERR_clear_error()
        message = lib.BIO_new_mem_buf(raw, len(raw))
        try:
            cms = lib.SMIME_read_CMS(message, ctypes.byref(content))
            if cms and lib.CMS_verify(cms, None, self.store, content, None, 0) == 1:
                return ""
            return self.said() or "no reason given"
        finally:
            lib.CMS_ContentInfo_free(cms)
            lib.BIO_free(content)
            lib.BIO_free(message)


def main(argv):
    lies = {}
    while len(argv) > 3:
        lies[argv[-2].lstrip("-")] = argv[-1]
        argv = argv[:-2]
    with open(argv[1]) as f:
        world = json.load(f)
    json.dump(Judge(world, lies).run(), sys.stdout, indent=1)


main(sys.argv)
