"""A folder with a CSV file of labels, in its three forms, and what can be wrong with it."""

import warnings

import numpy as np
import pytest
from PIL import Image

from piaa_utils.worlds import LabelledFolder

NAMES = ("a.jpg", "sub/b.jpg", "c.png")
FORMS = {
    "names": "file,labels\na.jpg,cat; dog\nsub/b.jpg,\nc.png,cow\n",
    "columns": "file,cat,cow,dog\na.jpg,1,0,1\nsub/b.jpg,0,0,0\nc.png,0,1,0\n",
    "semicolons": 'file;labels\na.jpg;"cat;dog"\nsub/b.jpg;\nc.png;cow\n',
    "tabs": "labels\tfile\ncat;dog\ta.jpg\n\tsub/b.jpg\ncow\tc.png\n",
    "lists": "path,tags\na.jpg,\"['cat', 'dog']\"\nsub/b.jpg,[]\nc.png,['cow']\n",
    "unknown name of column": "which,what\na.jpg,cat;dog\nsub/b.jpg,\nc.png,cow\n",
    "windows": "\ufefffile,labels\r\na.jpg,cat;dog\r\nsub\\b.jpg,\r\n.\\c.png,cow\r\n\r\n",
}


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4), (9, 9, 9)).save(tmp_path / name)
    return tmp_path


def write(folder, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "labels.csv").write_bytes(data)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_mean_the_same(folder, form):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = LabelledFolder(write(folder, FORMS[form]))
    assert data.ids == list(NAMES) and data.paths == [folder / name for name in NAMES]
    assert data.class_names[:3] == ("cat", "cow", "dog")
    assert data.labels[:, :3].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert data.labels.dtype == np.int8 and data.labels.max() == 1
    assert data[1].size == (5, 4) and len(data) == 3 and not data.difficult.any()


def test_rows_without_an_image_and_images_without_a_row(folder):
    write(folder, "file,labels\na.jpg,cat\ngone.jpg,cat;dog\n")
    with (
        pytest.warns(UserWarning, match="1 of 2 images are not there: gone.jpg"),
        pytest.warns(UserWarning, match=r"2 images .* no row .*: c\.png, sub/b\.jpg\. Add rows"),
    ):
        data = LabelledFolder(folder)
    assert data.ids == ["a.jpg"] and data.labels.tolist() == [[1, 0]]
    assert data.missing == ["gone.jpg"] and data.unlisted == ["c.png", "sub/b.jpg"]


FLAGS, PAIR = FORMS["columns"], ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        (FORMS["names"], ["dog", "cow", "cat"], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        (FLAGS, ["dog", "cow", "cat"], [[1, 0, 1], [0, 0, 0], [0, 1, 0]]),
        (FLAGS, ["dog"], [[1], [0], [0]]),
        ('file,labels\na.jpg,"cat, wild"\nsub/b.jpg,\nc.png,\n', ["cat, wild"], [[1], [0], [0]]),
    ],
)
def test_own_class_list(folder, text, names, labels):
    assert LabelledFolder(write(folder, text), class_names=names).labels.tolist() == labels


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("file,labels\n", None, "there should be a line such as file,labels"),
        ("file,labels\na.jpg,cat,dog\n", None, "line 2: 3 columns where 2 .*double quotes"),
        ("file,labels\n,cat\n", None, "line 2: there is no file name"),
        ("file,labels\na.jpg,\n", None, "no row has a label"),
        ('file,labels\na.jpg,cat\nc.png,"' + "x\n" * 70_000, None, "v, line 3: .*double quotes"),
        ('file,labels "' + "x" * 140_000 + '"\n', None, "v, line 1: .*cannot be read"),
        ("file,cat,dog\na.jpg,1,0\n.\\a.jpg,0,0\n", None, "line 3: 'a.jpg' is listed twice"),
        ("file,cat,Cat\na.jpg,1,0\n", ["cat"], "the same name twice: 'cat' and 'Cat'"),
        ("file\na.jpg\n", None, "there is no column of labels"),
        (FLAGS, ["dogg"], "no column for the class 'dogg'"),
        (FLAGS.partition("\n")[2], None, "there should be a line such as file,labels"),
        ("file,labels\na.jpg,cat\nc.png,dogg\n", PAIR, "line 3: 'dogg' is none of the 2 classes"),
        ("file,labels\na.jpg,[1. 0.]\n", PAIR, "line 2: .* is no list of names"),
        ("file,labels\na.jpg,[b'cat']\n", PAIR, "line 2: .* is no list of names"),
    ],
)
def test_files_that_cannot_be_understood(folder, text, names, message):
    with pytest.raises(ValueError, match=message):
        LabelledFolder(write(folder, text), class_names=names)


def test_what_is_not_there(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        LabelledFolder(folder / "nowhere")
    monkeypatch.chdir(folder)
    with pytest.raises(FileNotFoundError, match="no folder"):
        LabelledFolder("")  # not the working folder
    with pytest.raises(FileNotFoundError, match=r"no file .*labels\.csv.*file,labels"):
        LabelledFolder(folder)
    with pytest.raises(FileNotFoundError, match=r"2 of 2 images.*x, y\. Looked in .*suffix"):
        LabelledFolder(write(folder, "file,labels\nx,cat\ny,dog\n"))


ONE_ROW = "file,labels\na.jpg,{}\nsub/b.jpg,[]\nc.png,\n"
FLAG_ROWS = "file,cat,dog\na.jpg,{0},{0}\nsub/b.jpg,{1},{1}\nc.png,{1},{1}\n"


@pytest.mark.parametrize(
    "text",
    [
        ONE_ROW.format("\"['cat' 'dog']\""),  # as NumPy and Python print lists
        ONE_ROW.format("\"['cat'\n 'dog']\""),
        ONE_ROW.format("\"('cat', 'dog')\""),
        ONE_ROW.format("\"{'cat', 'dog'}\""),
        FLAG_ROWS.format("True", "False"),  # as pandas prints flags
        FLAG_ROWS.format("1.0", "0.0"),
        "file,label\n./a.jpg,cat;dog\nsub//b.jpg,\nc.png,\n",
    ],
)
def test_tables_as_programs_write_them(folder, text):
    data = LabelledFolder(write(folder, text))
    assert data.ids == list(NAMES) and data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [[1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize("cell", ["-1", "1", "True", "0.5", "3", "nan", "None", "<NA>"])
def test_a_cell_with_two_readings_is_refused_unless_the_classes_are_given(folder, cell):
    write(folder, f"file,labels\na.jpg,cat\nsub/b.jpg,{cell}\nc.png,\n")
    with pytest.raises(ValueError, match=rf"line 3: '{cell}' may mean .*class_names"):
        LabelledFolder(folder)
    assert LabelledFolder(folder, class_names=["cat", cell]).labels[1].tolist() == [0, 1]


def test_splits_of_a_folder(folder, tmp_path_factory):
    rows = "file,labels,split\na.jpg,cat,Train\nsub/b.jpg,,val\nc.png,dog,val\n"
    file = tmp_path_factory.mktemp("other") / "mine.csv"
    file.write_text(rows)
    assert LabelledFolder(folder, file).labels.tolist() == [[1, 0], [0, 0], [0, 1]]
    write(folder, rows)
    for split, ids in (("learn", NAMES[:1]), ("val", NAMES[1:]), ("test", NAMES[1:])):
        assert LabelledFolder(folder, split=split).ids == list(ids)
    with pytest.raises(ValueError, match="line 5: 'a.jpg' is listed twice"):
        LabelledFolder(write(folder, f"{rows}a.jpg,dog,val\n"))
    write(folder, "file,labels,split\na.jpg,cat,other\n")
    with pytest.raises(ValueError, match="no row has the split 'test', only other"):
        LabelledFolder(folder, split="test")
