#!/usr/bin/env python3
"""Print the manifest of small.flist: what a right reader of the legacy format shows.

usage: manifest.py small.flist ../small/manifest.jsonl > manifest.jsonl

Names, owners, modes, times, types and link targets come from the flist, read here without any of our code; the hashes
come from the manifest of the tree that both fixtures were packed from. Fields as in ../README.md.
"""
import io, json, sqlite3, struct, sys, tarfile, tempfile


def far(seg, at):
    word = struct.unpack_from("<Q", seg, at * 8)[0]
    off = (word & 0xffffffff) >> 2
    off -= (off >> 29) << 30
    return word, at + 1 + off


class Struct:
    def __init__(self, seg, at, data, pointers):
        self.seg, self.at, self.data, self.pointers = seg, at, data, pointers

    @classmethod
    def follow(cls, seg, at):
        word, start = far(seg, at)
        return cls(seg, start, word >> 32 & 0xffff, word >> 48)

    def num(self, form, byte):
        return struct.unpack_from(form, self.seg, self.at * 8 + byte)[0]

    def place(self, n):
        return self.at + self.data + n

    def sub(self, n):
        return Struct.follow(self.seg, self.place(n))

    def text(self, n):
        word, start = far(self.seg, self.place(n))
        return self.seg[start * 8:start * 8 + max((word >> 35) - 1, 0)]

    def items(self, n):
        word, start = far(self.seg, self.place(n))
        if not word:
            return []
        tag = struct.unpack_from("<Q", self.seg, start * 8)[0]
        count, data, pointers = (tag & 0xffffffff) >> 2, tag >> 32 & 0xffff, tag >> 48
        return [Struct(self.seg, start + 1 + i * (data + pointers), data, pointers) for i in range(count)]


packed = tarfile.open(sys.argv[1])
database = tempfile.NamedTemporaryFile()
database.write(packed.extractfile("./flistdb.sqlite3").read())
database.flush()
db = sqlite3.connect(database.name)
values = dict(db.execute("SELECT key, value FROM entries"))
hashes = {e["path"]: e.get("sha256") for e in map(json.loads, open(sys.argv[2]))}
root = lambda key: Struct.follow(values[key.decode()][8:], 0)
out = []


def show(path, kind, acl, mtime, ctime, more):
    acl = root(acl)
    shown = path.decode("utf-8", "replace") or "/"
    out.append((path, {"path": shown, "type": kind, "mode": "%04o" % acl.num("<H", 0), "uid": ~acl.num("<q", 8),
                       "gid": ~acl.num("<q", 16), "mtime": mtime, "ctime": ctime, **more}))


def walk(path, key):
    here = root(key)
    show(path, "dir", here.text(4), here.num("<I", 8), here.num("<I", 12), {})
    for e in here.items(2):
        name, tag = path + b"/" + e.text(0), e.num("<H", 8)
        if tag == 0:
            walk(name, e.sub(1).text(0))
            continue
        if tag == 1:
            kind, more = "file", {"size": e.num("<Q", 0), "sha256": hashes[name.decode("utf-8", "replace")]}
        elif tag == 2:
            target = e.sub(1).text(0)
            kind, more = "symlink", {"size": len(target), "target": target.decode("utf-8", "replace")}
        else:
            kind, more = ["socket", "block", "char", "fifo"][e.sub(1).num("<H", 0)], {}
        show(name, kind, e.text(2), e.num("<I", 12), e.num("<I", 16), more)


walk(b"", b"cae66941d9efbd404e4d88758ea67670")
for _, e in sorted(out, key=lambda x: x[0]):
    print(json.dumps(e, ensure_ascii=False))
