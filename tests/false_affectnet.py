"""False AffectNets: drawn faces in both layouts, every flaw on purpose, a known answer a row."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
from false_pictures import KINDS, SIDE, X, Y, around, bomb, make_face, save

COLUMNS = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
    "expression,valence,arousal"
)
LANDMARKS = ";".join(["31.5"] * 136)


@dataclasses.dataclass
class Answer:
    """What must become of a row: a face with a label, or a reason to drop it."""

    name: str
    split: str
    label: int = 0
    reason: str = ""
    face: np.ndarray | None = None  # uint8 [SIDE, SIDE, 3]; None where it need not be compared
    exact: bool = True
    valence: float = 0.25
    arousal: float = -0.5


@dataclasses.dataclass
class Known:
    """The answers, in the order of the rows."""

    answers: list[Answer] = dataclasses.field(default_factory=list)

    def report(self):
        dropped = {}
        for answer in self.answers:
            if answer.reason:
                dropped.setdefault(answer.reason, []).append(answer.name)
        kept = {s: len(self.kept(s)) for s in dict.fromkeys(a.split for a in self.answers)}
        return {"rows": len(self.answers), "kept": kept, "dropped": dropped}

    def kept(self, split):
        return [a for a in self.answers if a.split == split and not a.reason]


class Csv:
    """Writes the layout of 2017, row by row."""

    def __init__(self, root, *, images="Manually_Annotated_Images", lists="", header=True):
        self.root, self.images, self.lists = Path(root), Path(root) / images, Path(root) / lists
        self.header, self.known = header, Known()
        self.lines = {"train": [], "validation": []}

    def row(self, split, path, *, box=(X, Y, SIDE, SIDE), expression=0, reason="", **answer):
        x, y, w, h = box
        fields = [path, x, y, w, h, LANDMARKS, expression, "0.25", "-0.5"]
        self.lines[split].append(",".join(map(str, fields)).encode())
        label = expression if isinstance(expression, int) else 0
        self.known.answers.append(Answer(path, split, label, reason, **answer))

    def line(self, split, line, name, reason):
        self.lines[split].append(line)
        self.known.answers.append(Answer(name, split, reason=reason))

    def face(self, split, path, number, *, on_disk=None, kind="plain", **row):
        """A picture and its row."""
        picture = around(make_face(number), number)
        shown, exact = save(self.images / (on_disk or path), picture, kind)
        face = shown[Y : Y + SIDE, X : X + SIDE]
        self.row(split, path, expression=number % 8, face=face, exact=exact, **row)

    def file(self, path, data):
        (self.images / path).parent.mkdir(parents=True, exist_ok=True)
        (self.images / path).write_bytes(data)

    def finish(self):
        self.lists.mkdir(parents=True, exist_ok=True)
        self.known.answers.sort(key=lambda answer: answer.split)  # stable: "train" first
        for split, name in (("train", "training.csv"), ("validation", "validation.csv")):
            lines = [COLUMNS.encode()] * self.header + self.lines[split]
            (self.lists / name).write_bytes(b"\n".join(lines) + b"\n")
        return self.known


def write_plain_csv(root, train=24, validation=8, **layout):
    """A csv AffectNet without flaws, of plain PNGs."""
    files = Csv(root, **layout)
    for number in range(train + validation):
        split = "train" if number < train else "validation"
        files.face(split, f"{number % 3}/{number:04}.png", number)
    return files.finish()


def write_flawed_csv(root, **layout):
    """A csv AffectNet with every flaw; what it must not open lies beside it, whole."""
    files, root = Csv(root, **layout), Path(root)
    for number, (listed, on_disk, kind) in enumerate(KINDS):
        split = "train" if number % 3 else "validation"
        files.face(split, f"1/{listed}", number, on_disk=f"1/{on_disk}", kind=kind)
    files.face("train", "2/leaves.png", 20)
    whole = (files.images / "2" / "leaves.png").read_bytes()
    files.known.answers[-1].face = None
    # The same picture, its box over the edge: kept. Each under a name of its own.
    for name, box in (("left", (-20, 23, 48, 48)), ("corner", (90, 70, 48, 48))):
        files.file(f"2/{name}.png", whole)
        files.row("train", f"2/{name}.png", box=box, expression=4)
    for i, box in enumerate([(110, 0, 9, 9), (0, 90, 9, 9), (-9, 0, 9, 9), (0, -50, 20, 20)]):
        files.file(f"3/outside{i}.png", whole)
        files.row("train", f"3/outside{i}.png", box=box, reason="box outside the picture")
    for i, box in enumerate([(0, 0, 0, 9), (0, 0, 9, 0), (5, 5, -4, 9)]):
        files.row("train", f"3/empty{i}.png", box=box, reason="empty box")
    for i, value in enumerate(["NULL", "", "nan", "inf", "x"]):
        files.row("validation", f"3/null{i}.png", box=(0, value, 9, 9), reason="no box")
    files.file("3/huge.png", whole)
    files.row("train", "3/huge.png", box=(0, 0, 10**9, 10**9), reason="box too large")
    for code, reason in ((8, "none"), (9, "uncertain"), (10, "no face")):
        for split in ("train", "validation"):
            files.file(f"4/{split}{code}.png", whole)
            files.row(split, f"4/{split}{code}.png", expression=code, reason=reason)
    for i, value in enumerate(["NULL", "", "-1", "11", "1.5", "joy"]):
        files.row("train", f"4/bad{i}.png", expression=value, reason="bad expression")
    files.row("train", "2/leaves.png", expression=3, reason="duplicate")
    files.row("train", "2//x/../leaves.png", expression=3, reason="duplicate")
    files.row("validation", "2/gone.png", reason="missing file")
    files.row("validation", "2/" + "long" * 200 + ".png", reason="missing file")
    jpeg = (files.images / "1" / "b.jpg").read_bytes()
    for i, data in enumerate([b"", b"no picture", jpeg[: len(jpeg) // 2], whole[:-60]]):
        files.file(f"5/damaged{i}.jpg", data)
        files.row("train", f"5/damaged{i}.jpg", reason="unreadable picture")
    files.file("5/bomb.png", bomb())
    files.row("train", "5/bomb.png", reason="picture too large")
    outside = root.parent / f"{root.name}-outside.png"
    outside.write_bytes(whole)
    (files.images / "5" / "link.png").symlink_to(outside)
    up = "../" * (len(files.images.relative_to(root).parts) + 1)
    for path in (up + outside.name, str(outside), "5/link.png", "C:/x.png", "..\\..\\x.png"):
        files.row("train", path, reason="path out of the folder")
    files.line("train", b"6/short.png,1,2,3", "6/short.png", "damaged row")
    files.line("train", b'"6/quote.png,1,2', "6/quote.png,1,2", "damaged row")
    files.line("train", b"6/bytes\xff\xfe.png,1", "6/bytes\ufffd\ufffd.png", "damaged row")
    files.lines["train"].append(b"")  # an empty line is no row
    # After all that, the last one is still read.
    files.face("train", "7/last.png", 40)
    return files.finish()


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return Path.touch, (Path(self.mark),)


def write_npy(root, train=24, validation=8, *, flaws=False, suffix=".png"):
    """An npy AffectNet of the same faces as `write_plain_csv`, in the same order."""
    root, known = Path(root), Known()
    for number in range(train + validation):
        split, place = ("train", "train_set") if number < train else ("validation", "val_set")
        face = make_face(number)
        save(root / place / "images" / f"{number}{suffix}", face, "plain")
        _annotate(root / place, number, str(number % 8))
        exact = suffix != ".jpg"
        known.answers.append(Answer(f"{place}/{number}", split, number % 8, face=face, exact=exact))
    if flaws:
        _add_flaws(root, known, train)
    known.answers.sort(key=lambda answer: answer.split)
    return known


def _annotate(place, number, expression):
    (place / "annotations").mkdir(parents=True, exist_ok=True)
    values = {"exp": expression, "val": "0.25", "aro": "-0.5", "lnd": LANDMARKS}
    for kind, value in values.items():
        np.save(place / "annotations" / f"{number}_{kind}.npy", np.array(value))


def _add_flaws(root, known, train):
    place = root / "train_set"
    face, marks = make_face(1), place / "annotations"
    number = 1000

    def add(reason, expression="3", picture=True):
        nonlocal number
        number += 1
        if picture:
            save(place / "images" / f"{number}.JPG", face, "plain")
        _annotate(place, number, expression)
        label = int(expression) if not reason else 0
        known.answers.append(Answer(f"train_set/{number}", "train", label, reason))
        return number

    add("")
    np.save(marks / f"{add('')}_exp.npy", np.array(["3"]))  # of size 1, with an axis
    np.save(marks / f"{add('')}_exp.npy", np.array(3))
    for code, reason in ((8, "none"), (9, "uncertain"), (10, "no face"), (12, "bad expression")):
        add(reason, str(code))
    add("bad expression", "NULL")
    add("missing file", picture=False)
    (marks / f"{add('no annotation')}_exp.npy").unlink()
    evil = Evil(root / "unpickled")
    np.save(marks / f"{add('pickled annotation')}_exp.npy", np.array(evil, object))
    np.save(marks / f"{add('pickled annotation')}_val.npy", np.array(evil, object))
    (marks / f"{add('pickled annotation')}_exp.npy").write_bytes(pickle.dumps(evil))
    (marks / f"{add('damaged annotation')}_exp.npy").write_bytes(b"")
    np.save(marks / f"{add('damaged annotation')}_exp.npy", np.array(["1", "2"]))
    np.save(marks / f"{add('damaged annotation')}_exp.npy", np.zeros(9999))
    # A header of a few bytes that asks for a terabyte.
    np.save(marks / "x.npy", np.zeros(1))
    huge = (marks / "x.npy").read_bytes().replace(b"(1,), }" + b" " * 10, b"(99999999999,), }")
    (marks / "x.npy").unlink()
    (marks / f"{add('damaged annotation')}_exp.npy").write_bytes(huge)
    (place / "images" / f"{add('unreadable picture')}.JPG").write_bytes(b"no picture")
    (place / "images" / f"{add('picture too large')}.JPG").write_bytes(bomb())
    secret = root.parent / f"{root.name}-outside.png"
    save(secret, face, "plain")
    out = add("path out of the folder", picture=False)
    (place / "images" / f"{out}.png").symlink_to(secret)
    np.save(root.parent / f"{root.name}-outside.npy", np.array("3"))
    path = marks / f"{add('path out of the folder')}_exp.npy"
    path.unlink()
    path.symlink_to(root.parent / f"{root.name}-outside.npy")
